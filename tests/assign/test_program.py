"""The integer program against every choice there is, on small tables."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.assign.program import QUANTITIES, Program
from qcompile.assign.table import Cast, Entry, Format, Group, Pair
from qcompile.assign.totals import Parts, Totals, totals, uniform_formats
from qcompile.errors import QCompileError
from tests.assign.tables import FORMATS, all_choices, made_up


def within(sums: Totals, limits: dict[str, float]) -> bool:
    return all(getattr(sums, name) <= limit * (1 + 1e-9) for name, limit in limits.items())


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_optimal_and_within_the_limits(data):
    groups = data.draw(st.integers(1, 5))
    pairs = data.draw(st.integers(0, 3)) if groups > 1 else 0
    table = made_up(groups, 3, data.draw(st.integers(0, 999)), pairs)
    everything = [totals(table, formats) for formats in all_choices(table)]
    objective = data.draw(st.sampled_from(QUANTITIES))
    limits = {
        name: getattr(data.draw(st.sampled_from(everything)), name)
        for name in data.draw(st.sets(st.sampled_from([q for q in QUANTITIES if q != objective])))
    }
    allowed = [getattr(sums, objective) for sums in everything if within(sums, limits)]
    solution = Program(table).solve(objective, limits, gap=0)
    assert (solution is None) == (not allowed)
    if solution is not None:
        assert within(solution.totals, limits) and solution.totals == totals(table, solution.formats)
        assert getattr(solution.totals, objective) == pytest.approx(min(allowed), rel=1e-5, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.randoms(use_true_random=False))
def test_parts_are_what_a_change_changes(seed, rng):
    table = made_up(6, 4, seed, pairs=3)
    formats = {group.name: rng.choice([*group.entries]) for group in table.groups}
    group = rng.choice(table.groups)
    other = rng.choice([*group.entries])
    before, after = totals(table, formats), totals(table, {**formats, group.name: other})
    parts = Parts(table)
    old, new = (parts(formats, group.name, name) for name in (formats[group.name], other))
    for name in QUANTITIES:
        assert getattr(after, name) - getattr(before, name) == pytest.approx(
            getattr(new, name) - getattr(old, name), rel=1e-6, abs=1e-12
        )


def row_of_two(casts, formats=FORMATS[:2], seconds=(3e-6, 1e-6)):
    groups = tuple(
        Group(n, (n,), {f.name: Entry(0.0, s, 1) for f, s in zip(formats, seconds, strict=True)}) for n in "ab"
    )
    return dataclasses.replace(
        made_up(2, 2), formats=formats, groups=groups, casts=casts, cast_overhead=0, cast_bandwidth=50e9
    )


def test_a_cast_that_costs_more_than_it_saves():
    dear, cheap = (row_of_two((Cast("x", n, "", ("a",)),)) for n in (50_000, 5_000))  # 5 and 0.5 us
    assert Program(cheap).solve("seconds", {}).formats == {"a": "int8", "b": "int8"}
    assert Program(dear).solve("seconds", {}).formats == {"a": "fp32", "b": "int8"}


def test_casts_are_counted_once_for_each_dtype():
    table = row_of_two((Cast("x", 10_000, "", ("a", "b")),))
    assert totals(table, {"a": "int8", "b": "int8"}).cast_seconds == pytest.approx(1e-6)
    assert totals(table, {"a": "int8", "b": "fp32"}).cast_seconds == pytest.approx(1e-6)
    assert totals(table, {"a": "fp32", "b": "fp32"}).cast_seconds == 0


def test_a_wider_result_is_written_as_such_unless_codes_are_wanted_too():
    table = row_of_two((Cast("a", 10_000, "a", ("b",)),))
    assert totals(table, {"a": "int8", "b": "fp32"}).cast_seconds == 0
    both = row_of_two((Cast("a", 10_000, "a", ("b", "")),))
    assert totals(both, {"a": "int8", "b": "fp32"}).cast_seconds == 0
    assert totals(both, {"a": "int8", "b": "int8"}).cast_seconds == pytest.approx(1e-6)  # for the model's output
    assert Program(both).solve("seconds", {}).totals.cast_seconds == pytest.approx(1e-6)


def test_formats_with_equal_activations_need_no_cast():
    table = row_of_two((Cast("x", 10**6, "", ("a",)),), (FORMATS[0], Format("w8", "float32", 4)))
    assert Program(table).solve("seconds", {}).formats == {"a": "w8", "b": "w8"}


def test_pairs_change_the_choice():
    table = made_up(2, 2, seed=3, skip=0)
    fast = {"layer0": "int8", "layer1": "int8"}
    limit = {"seconds": totals(table, fast).seconds * 2}
    worse = dataclasses.replace(table, pairs=(Pair(("layer0", "layer1"), ("int8", "int8"), 9.0),))
    assert Program(table).solve("seconds", {}).formats == fast
    assert Program(worse).solve("loss", limit).formats != fast
    assert Program(worse).solve("seconds", {"loss": 5.0}).formats != fast


def test_equally_good_choices_are_told_apart_by_the_rest():
    entries = {"fp32": Entry(0, 1e-6, 40), "int8": Entry(0.5, 1e-6, 10), "bf16": Entry(0, 1e-6, 20)}
    table = dataclasses.replace(made_up(1, 3), groups=(Group("g", ("g",), entries),), casts=())
    assert Program(table).solve("loss", {}).formats == {"g": "bf16"}


def test_many_groups():
    """300 groups in 6 formats end within the time that is given, near the optimum."""
    table = made_up(300, 6, pairs=20)
    fast = totals(table, uniform_formats(table, "int8"))
    solution = Program(table).solve("seconds", {"loss": fast.loss / 10}, gap=1e-2, time_limit=30)
    assert solution.totals.loss <= fast.loss / 10 * (1 + 1e-9) and solution.gap < 0.05
    assert set(solution.formats) == {group.name for group in table.groups}


def test_the_solver_leaves_standard_output_alone(capfd):
    print("before", flush=True)
    Program(made_up(30, 6, 1)).solve("loss", {"seconds": 3e-4})
    assert capfd.readouterr().out == "before\n"


def test_no_time():
    table = made_up(300, 6, pairs=20)
    try:
        Program(table).solve("bytes", {"loss": 1.0, "seconds": 2e-3}, time_limit=0.01)
    except QCompileError as error:
        assert "no assignment found in" in str(error)
