"""Greedy and HAWQ's score: within budgets, and never better than the integer program."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.assign.assignment import assign
from qcompile.assign.greedy import greedy, hawq
from qcompile.assign.table import Entry, Group
from qcompile.assign.totals import totals, uniform_formats
from qcompile.errors import QCompileError
from tests.assign.tables import FORMATS, made_up


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.floats(0.01, 1))
def test_the_program_is_at_least_as_good(seed, part):
    table = made_up(8, 4, seed, pairs=2)
    budget = part * totals(table, uniform_formats(table, "int8")).loss
    ours, theirs = assign(table, max_loss=budget, gap=1e-6), greedy(table, max_loss=budget)
    assert theirs.totals.loss <= budget and theirs.totals == totals(table, theirs.formats)
    assert ours.totals.seconds <= theirs.totals.seconds * (1 + 1e-5)
    latency = theirs.totals.seconds
    within = assign(table, max_seconds=latency)
    assert within.totals.loss <= theirs.totals.loss * 1.001 + 1e-9
    scored = hawq(table, max_seconds=latency)
    assert scored.totals.seconds <= latency * (1 + 1e-9) and scored.totals.loss >= within.totals.loss * 0.999 - 1e-9


def test_stops_at_the_budget():
    table = made_up(10, 2, seed=1, skip=0)
    slow, fast = (totals(table, uniform_formats(table, name)) for name in ("fp32", "int8"))
    found = greedy(table, max_seconds=(slow.seconds + fast.seconds) / 2)
    assert set(found.formats.values()) == {"fp32", "int8"} and found.objective == "accuracy"
    assert found.totals.seconds <= (slow.seconds + fast.seconds) / 2 and found.gap is None and found.method == "greedy"
    assert greedy(table, max_bytes=fast.bytes).totals.bytes <= fast.bytes
    with pytest.raises(QCompileError, match="the greedy choice ends at a latency of .* over the budget of 1 us"):
        greedy(table, max_seconds=1e-6)


def test_two_budgets_that_pull_apart():
    """What saves time takes room and the other way round: the search ends all the same."""
    entries = {"fp32": Entry(0, 4e-6, 400), "int8": Entry(0.1, 1e-6, 900), "w4": Entry(0.1, 9e-6, 50)}
    groups = tuple(Group(name, (name,), entries) for name in "ab")
    table = dataclasses.replace(made_up(2, 3), groups=groups, casts=(), formats=(*FORMATS[:2], FORMATS[5]))
    with pytest.raises(QCompileError, match="the greedy choice ends at"):
        greedy(table, max_seconds=6e-6, max_bytes=600)


def test_a_score_that_is_wrong_misleads():
    entries = {"fp32": Entry(0, 2e-6, 4), "int8": Entry(0.5, 1e-6, 1, scores={"hawq": 0.1})}
    harmless = {"fp32": Entry(0, 2e-6, 4), "int8": Entry(0.01, 1e-6, 1, scores={"hawq": 0.2})}
    groups = (Group("a", ("a",), entries), Group("b", ("b",), harmless))
    table = dataclasses.replace(made_up(2, 2), groups=groups, casts=())
    budget = table.rest_seconds + 3e-6
    scored = hawq(table, max_seconds=budget)
    assert scored.formats == {"a": "int8", "b": "fp32"} and scored.totals.loss == 0.5 and scored.method == "hawq"
    assert assign(table, max_seconds=budget).formats == {"a": "fp32", "b": "int8"}


def test_no_scores():
    entries = {"fp32": Entry(0, 2e-6, 4), "int8": Entry(0.5, 1e-6, 1)}
    table = dataclasses.replace(made_up(1, 2), groups=(Group("a", ("a",), entries),), casts=())
    with pytest.raises(QCompileError, match="a: no HAWQ score in int8"):
        hawq(table, max_seconds=1)
