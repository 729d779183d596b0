"""The search of one workload's knobs, on invented machines whose best schedule is known."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.tune.search import KnobSearch
from tests.targets.running import VNNI
from tests.targets.test_templates import convolution, matrix

CONV = convolution(64, 128, 28)


def run(search: KnobSearch, machine, batch: int = 8) -> int:
    """Lets a machine (knobs -> seconds or None) answer until the search ends; the number of trials."""
    trials = 0
    while not search.finished:
        new = search.propose(batch)
        assert new and not set(new) & set(search.tried), "a proposal is new"
        assert len(new) == len(set(new)) <= batch
        trials += len(new)
        reference = [] if search.best is None else [search.best]
        search.tell({knobs: machine(knobs) for knobs in [*reference, *new]})
    return trials


def prior(workload):
    template = TEMPLATES[workload.operator]
    return lambda knobs: template.cycles(workload, VNNI, knobs) * 1e-9


def test_where_the_prior_is_right_the_best_is_in_the_first_batch():
    search = KnobSearch(CONV, VNNI)
    trials = run(search, prior(CONV))
    assert search.cost == pytest.approx(min(map(prior(CONV), TEMPLATES["conv2d"].space(CONV, VNNI))), rel=0.02)
    assert trials <= 24


def test_the_default_is_measured_first():
    assert KnobSearch(CONV, VNNI).propose(4)[0] == TEMPLATES["conv2d"].default(CONV, VNNI)


def test_a_machine_unlike_the_prior_is_climbed():
    """One that likes wide tiles of few pixels: found by neighbours, though the prior ranks it far behind."""
    cost = prior(CONV)

    def machine(knobs):
        return cost(knobs) * (1 + 0.15 * abs(knobs.vectors - 6)) * (1.2 if knobs.channels_outer else 1)

    search = KnobSearch(CONV, VNNI)
    trials = run(search, machine)
    space = [k for k in TEMPLATES["conv2d"].space(CONV, VNNI) if cost(k) < 1.6 * cost(search.default)]
    best = min(map(machine, space))
    assert search.cost <= 1.05 * best
    assert search.cost < 0.9 * machine(search.default)
    assert trials < len(space) / 2


def test_patience_says_how_long_nothing_better_is_borne():
    counts = []
    for patience in (1, 3):
        search = KnobSearch(CONV, VNNI, patience=patience)
        counts.append(run(search, lambda knobs: 1e-3))
    assert counts == [16, 32]  # the first batch, which is neither better nor worse, and as many as patience says


def test_failures_are_no_times():
    search = KnobSearch(CONV, VNNI)
    run(search, lambda knobs: None if knobs == search.default else prior(CONV)(knobs))
    assert search.best != search.default
    assert search.tried[search.default] is None


def test_a_machine_on_which_everything_fails_ends_the_search():
    search = KnobSearch(CONV, VNNI)
    assert run(search, lambda knobs: None) <= 24
    assert search.best is None and search.cost is None


def test_what_was_tried_before_is_not_tried_again():
    first = KnobSearch(CONV, VNNI)
    batch = first.propose(8)
    tried = {knobs: prior(CONV)(knobs) for knobs in batch}
    again = KnobSearch(CONV, VNNI, tried=tried)
    assert again.best == min(tried, key=tried.__getitem__)
    assert not set(again.propose(8)) & set(batch)


def test_seeds_come_after_the_default_and_illegal_ones_are_ignored():
    knobs = sorted(TEMPLATES["conv2d"].space(CONV, VNNI), key=prior(CONV))[-1]
    search = KnobSearch(CONV, VNNI, [knobs, type(knobs)(999, 999, 999)])
    assert search.propose(8)[:2] == [search.default, knobs]


def test_a_space_of_one_ends_after_one_trial():
    small = convolution(16, 16, size=1, window=1, groups=16)
    search = KnobSearch(small, VNNI)
    assert run(search, prior(small)) == len(list(TEMPLATES[small.operator].space(small, VNNI))) == 1


def test_a_noisy_batch_does_not_make_the_incumbent_look_worse():
    """Everything takes twice as long for a while: what counts is the time beside the incumbent's of the same batch."""
    search = KnobSearch(CONV, VNNI)
    search.tell({knobs: prior(CONV)(knobs) for knobs in search.propose(8)})
    best = search.best
    new = search.propose(7)
    search.tell({knobs: 2 * prior(CONV)(knobs) for knobs in [best, *new]})
    assert search.best == best or prior(CONV)(search.best) < prior(CONV)(best)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([CONV, matrix(), convolution(48, 48, groups=48)]), st.randoms(use_true_random=False))
def test_any_machine_ends_every_search_with_its_best_time(workload, random):
    times: dict = {}
    search = KnobSearch(workload, VNNI)
    run(search, lambda knobs: times.setdefault(knobs, random.uniform(1e-6, 1e-3)))
    assert search.cost <= min(times.values()) / 0.99
