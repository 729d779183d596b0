"""Knobs of one shape for another: always legal, never across number formats, and from the shape that is most alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.x86 import ROWS
from qcompile.tune.transfer import SLOWER, adapt, comparable, features, nearest
from tests.targets.running import VNNI
from tests.tune.recorded import convolution, matrix

EXTENTS = st.integers(1, 40)
CHANNELS = st.integers(1, 12).map(lambda blocks: 16 * blocks)


@st.composite
def pairs(draw):
    """Two workloads that may be compared."""
    kind, integer = draw(st.sampled_from(["conv2d", "depthwise_conv2d", "dense"])), draw(st.booleans())

    def one():
        if kind == "dense":
            return matrix(draw(EXTENTS), draw(EXTENTS), draw(EXTENTS), draw(st.integers(1, 4)), integer)
        inputs, window, stride = draw(CHANNELS), draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 2))
        depthwise = kind == "depthwise_conv2d"
        outputs = inputs if depthwise else draw(CHANNELS)
        return convolution(
            inputs, outputs, draw(EXTENTS), draw(EXTENTS), window, stride, depthwise, integer, draw(st.booleans())
        )

    return one(), one()


@settings(max_examples=30)
@given(pairs(), st.sampled_from(ROWS), st.randoms(use_true_random=False))
def test_adapted_knobs_are_legal_and_no_slower_by_the_prior(pair, target, rng):
    old, new = pair
    template = TEMPLATES[old.operator]
    knobs = rng.choice(list(template.space(old, target)))
    found = adapt(knobs, old, new, target)
    if found is not None:
        assert template.is_legal(new, target, found)
    if found is not None and old.key != new.key:  # what was measured needs no prior
        default = template.default(new, target)
        assert template.cycles(new, target, found) <= SLOWER * template.cycles(new, target, default)


@settings(max_examples=30)
@given(pairs(), st.sampled_from(ROWS), st.randoms(use_true_random=False))
def test_the_own_shape_keeps_its_knobs(pair, target, rng):
    knobs = rng.choice(list(TEMPLATES[pair[0].operator].space(pair[0], target)))
    assert adapt(knobs, pair[0], pair[0], target) == knobs


@given(pairs())
def test_distance_is_a_metric(pair):
    a, b = map(features, pair)
    assert np.isfinite(a).all() and np.abs(a - a).sum() == 0
    assert np.abs(a - b).sum() == np.abs(b - a).sum()


def test_knobs_without_an_extent_are_kept():
    old, new = convolution(width=14, window=1), convolution(width=12, height=28, window=1)
    template = TEMPLATES["conv2d"]
    for knobs in template.space(old, VNNI):
        found = adapt(knobs, old, new, VNNI)
        if found is not None:
            rest = [f.name for f in dataclasses.fields(knobs) if f.name not in ("rows", "columns", "vectors")]
            assert [getattr(found, name) for name in rest] == [getattr(knobs, name) for name in rest]
            assert found.vectors == knobs.vectors


def test_an_extent_that_covered_all_covers_more():
    """Seven pixels were all of a row; the wider row's tile is wider, but not for fewer vectors."""
    old, new = convolution(width=7), convolution(width=9)
    knobs = dataclasses.replace(TEMPLATES["conv2d"].default(old, VNNI), rows=1, columns=7, vectors=2)
    assert adapt(knobs, old, new, VNNI) == dataclasses.replace(knobs, columns=9)


def test_an_extent_that_was_chosen_stays():
    old, new = convolution(width=28), convolution(width=42)
    knobs = dataclasses.replace(TEMPLATES["conv2d"].default(old, VNNI), rows=1, columns=7, vectors=2)
    assert adapt(knobs, old, new, VNNI) == knobs


def test_depthwise_rows_are_covered_too():
    old, new = convolution(depthwise=True, width=7), convolution(depthwise=True, width=10)
    knobs = TEMPLATES["depthwise_conv2d"].knobs(7)
    assert adapt(knobs, old, new, VNNI).columns == 10


def test_slow_knobs_are_vetoed():
    old, new = convolution(height=28), convolution()
    knobs = dataclasses.replace(TEMPLATES["conv2d"].default(old, VNNI), rows=1, columns=1, vectors=1)
    assert adapt(knobs, old, new, VNNI) is None


@pytest.mark.parametrize(
    "other",
    [
        convolution(integer=False),
        convolution(depthwise=True),
        matrix(),
        dataclasses.replace(convolution(), out=convolution(integer=False).out),
    ],
)
def test_what_cannot_be_compared(other):
    assert comparable(other) != comparable(convolution())


def order(of, *others) -> list[int]:
    return nearest(features(of), [features(other) for other in others])


def test_nearer_shapes_first():
    base = convolution(64, 64, 28, 28)
    others = [
        convolution(64, 128, 28, 28),
        convolution(64, 64, 28, 28, residual=True),
        convolution(64, 64, 28, 28, stride=2),
        convolution(64, 64, 28, 28, batch=4),
        convolution(64, 64, 30, 30),
        dataclasses.replace(base, threads=2),
    ]
    assert order(base, *others) == [3, 4, 1, 0, 5, 2]


@pytest.mark.parametrize(
    "other",
    [
        convolution(64, 64, 14, 14, window=1),
        convolution(64, 64, 112, 112),
        convolution(64, 1024),
        dataclasses.replace(convolution(), x=dataclasses.replace(convolution().x, block=4)),
    ],
)
def test_far_shapes_say_nothing(other):
    assert order(convolution(), other) == []


def test_equals_keep_their_order():
    base, twice, half = convolution(), convolution(outputs=128), convolution(outputs=32)
    assert order(base, twice, half) == order(base, half, twice) == [0, 1]
