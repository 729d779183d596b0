"""Channel choices as runs of shuffles: every output channel gets the one that was asked for, in few runs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.targets.kernels.channels import channel_runs


def followed(runs, block):
    """Output channel -> (source, channel) as the runs say."""
    found = {}
    for run in runs:
        for i in range(run.count):
            blocks = run.blocks(i)
            for lane, chosen in enumerate(run.lanes):
                k = min(chosen // block, len(blocks) - 1)
                found[(run.first + i * run.step) * block + lane] = (run.sources[k], blocks[k] * block + chosen % block)
    return found


def check(numbers, block=16):
    runs = channel_runs(numbers, block)
    found = followed(runs, block)
    assert len(found) == sum(run.count for run in runs) * block >= len(numbers)
    assert [found[c] for c in range(len(numbers))] == numbers
    return runs


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 70)), min_size=1, max_size=70), st.sampled_from([1, 3, 4, 16])
)
def test_any_choice(numbers, block):
    check(numbers, block)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 80), min_size=1, max_size=4))
def test_concat(extents):
    runs = check([(k, c) for k, extent in enumerate(extents) for c in range(extent)])
    assert len(runs) <= 3 * len(extents)  # the first and the last block of an input, and those between


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 60))
def test_shuffle(groups, channels):
    c = np.arange(groups * channels)
    check([(0, int(i)) for i in c % groups * channels + c // groups])


def test_a_long_shuffle_is_a_short_loop():
    c = np.arange(1024)
    assert len(check([(0, int(i)) for i in c % 2 * 512 + c // 2])) == 2
