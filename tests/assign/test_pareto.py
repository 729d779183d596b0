"""The front: undominated, monotone, uniform formats among its points."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcompile.assign.assignment import assign
from qcompile.assign.pareto import Point as ParetoPoint
from qcompile.assign.pareto import dominates, marked, pareto
from qcompile.assign.totals import Totals, totals, uniform_formats
from qcompile.errors import QCompileError
from tests.assign.tables import all_choices, made_up


@pytest.fixture(scope="module", params=[0, 1, 2])
def table(request):
    return made_up(5, 3, request.param, pairs=request.param)


@pytest.fixture(scope="module")
def points(table):
    return pareto(table, points=6, sizes=2, gap=0)


def test_nothing_dominates_a_point_of_the_front(table, points):
    everything = [totals(table, formats) for formats in all_choices(table)]
    for point in points:
        assert point.totals == totals(table, point.formats)
        assert point.front == (not any(dominates(sums, point.totals) for sums in everything)) or point.name


def test_monotone(points):
    """Of points in order of latency, none is worse in both loss and size than one before it."""
    front = [point.totals for point in points if point.front]
    assert [t.seconds for t in front] == sorted(t.seconds for t in front)
    for i, later in enumerate(front):
        assert all(later.loss < t.loss or later.bytes < t.bytes or later == t for t in front[: i + 1])


def test_ends_and_uniform_formats(table, points):
    named = {point.name: point.totals for point in points if point.name}
    assert named == {f.name: totals(table, uniform_formats(table, f.name)) for f in table.formats}
    fastest = assign(table, objective="latency", gap=0)
    assert points[0].totals.seconds == pytest.approx(fastest.totals.seconds)
    assert min(p.totals.loss for p in points) == pytest.approx(assign(table, gap=0).totals.loss, abs=1e-9)
    smallest = assign(table, objective="size", gap=0).totals.bytes
    assert min(p.totals.bytes for p in points) == smallest


def test_a_table_without_groups_has_one_point():
    """A model with nothing to choose formats for: everything stays as it is."""
    table = replace(made_up(1), groups=(), casts=(), pairs=(), rest_seconds=3e-6, rest_bytes=100)
    (point,) = pareto(table)
    assert (point.formats, point.totals, point.front) == ({}, Totals(0, 3e-6, 100), True)
    with pytest.raises(QCompileError, match="no assignment has latency of at most 1 us .best reachable: 3"):
        assign(table, max_seconds=1e-6)


def test_progress_is_told(table):
    told = []
    pareto(table, points=4, sizes=1, report=lambda done, all_: told.append((done, all_)))
    assert told == sorted(told) and told[-1][0] <= told[-1][1] == 8


def test_dominance():
    one = Totals(1.0, 1.0, 10)
    assert dominates(one, Totals(1.0, 1.1, 10)) and not dominates(one, one)
    assert not dominates(one, Totals(0.9, 2.0, 20)) and not dominates(Totals(1.0, 1.0 - 1e-9, 10), one)


def test_points_behind_the_front_are_left_out_unless_uniform():
    def point(name, choice, *sums):
        return ParetoPoint({"g": choice}, Totals(*sums), name)

    kept = marked([point("", "a", 1, 1, 1), point("", "b", 2, 2, 2), point("int8", "c", 3, 3, 3)])
    assert [(p.name, p.front) for p in kept] == [("", True), ("int8", False)]
