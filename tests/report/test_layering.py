"""Layers from top to bottom: every edge downwards, nothing on top of each other, chains straight."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.report.layering import _rising, layered

WIDTH, PITCH, GAP, LANE = 100.0, 50.0, 20.0, 8.0


def places(*edges, nodes=()):
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edges)
    return layered(graph, WIDTH, PITCH, GAP, LANE)


def test_a_chain_is_a_straight_line():
    layout = places(("a", "b"), ("b", "c"))
    assert layout.places == {"a": (50, 25), "b": (50, 75), "c": (50, 125)} and layout.size == (100, 150)


def test_an_edge_across_layers_has_a_lane_beside_the_chain():
    layout = places(("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"))
    xs = [layout.places[name][0] for name in "abcd"]
    assert max(xs) - min(xs) < 2  # the chain stays, the edge makes way
    assert [y for _, y in layout.bends["a", "d"]] == [75, 125] and layout.bends["a", "b"] == ()
    for (x, _), beside in zip(layout.bends["a", "d"], xs[1:3], strict=True):
        assert abs(x - beside) >= (WIDTH + LANE) / 2 + GAP - 1e-9


def test_readers_of_one_tensor_share_its_lane():
    layout = places(("a", "b"), ("b", "c"), ("c", "d"), ("a", "c"), ("a", "d"))
    assert layout.bends["a", "c"] == layout.bends["a", "d"][:1]


def test_branches_lie_to_both_sides():
    layout = places(("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"))
    left, middle, right = (layout.places[name][0] for name in "bac")
    assert right - left == pytest.approx(WIDTH + GAP) and middle == pytest.approx((left + right) / 2)
    assert layout.places["d"][0] == pytest.approx(middle)


def test_a_late_input_stands_just_above_its_reader():
    layout = places(("a", "b"), ("b", "c"), ("mask", "c"))
    assert layout.places["mask"][1] == layout.places["b"][1]


def test_nothing_to_place():
    assert places().size == (0, 0)
    assert places(nodes=["alone"]).places == {"alone": (50, 25)}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=30))
def test_edges_point_down_and_nothing_overlaps(pairs):
    edges = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]
    layout = places(*edges, nodes=range(15))
    for source, reader in edges:
        ys = [layout.places[source][1], *(y for _, y in layout.bends[source, reader]), layout.places[reader][1]]
        assert [b - a for a, b in zip(ys, ys[1:], strict=False)] == [PITCH] * (len(ys) - 1)
    by_row: dict[float, list[float]] = {}
    for x, y in layout.places.values():
        by_row.setdefault(y, []).append(x)
    for xs in by_row.values():
        xs.sort()
        assert all(b - a >= WIDTH + GAP - 1e-6 for a, b in zip(xs, xs[1:], strict=False))
        assert xs[0] >= WIDTH / 2 - 1e-6 and xs[-1] <= layout.size[0] - WIDTH / 2 + 1e-6


def test_nearest_rising_sequence():
    assert _rising([1, 3, 2, 4], [1, 1, 1, 1]) == [1, 2.5, 2.5, 4]
    assert _rising([2, 0], [3, 1]) == [1.5, 1.5] and _rising([], []) == []
