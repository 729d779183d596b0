"""Who reads whose result, and what is cast on the way."""

from __future__ import annotations

import dataclasses

import networkx as nx

from qcompile.assign.totals import totals
from qcompile.report.model_graph import casts_of, model_graph
from tests.assign.tables import made_up
from tests.report.pages import ODD, odd_table

MIXED = {ODD: "int8", "c": "fp32", "last": "int8"}


def casts(graph: nx.DiGraph) -> dict[tuple[str, str], list[str]]:
    return {(a, b): [c.tensor for c in found] for a, b, found in graph.edges(data="casts") if found}


def test_layers_inputs_and_outputs():
    graph = model_graph(odd_table(), MIXED)
    assert dict(graph.nodes(data="group")) == {ODD: ODD, "tail": ODD, "c": "c", "last": "last", "in": None, "": None}
    assert set(graph.edges) == {("in", ODD), (ODD, "c"), ("c", "tail"), (ODD, "tail"), ("tail", "last"), ("last", "")}


def test_casts_stand_where_formats_differ():
    graph = model_graph(odd_table(), MIXED)
    assert casts(graph) == {("in", ODD): ["in"], ("c", "tail"): ["c"]}  # int8 writes what fp32 alone reads by itself
    assert casts(model_graph(odd_table(), dict.fromkeys(MIXED, "fp32"))) == {}


def test_casts_are_those_that_are_paid_for():
    table = made_up(20, 4, 2)
    formats = {group.name: list(group.entries)[i % len(group.entries)] for i, group in enumerate(table.groups)}
    found = casts_of(table, formats)
    assert sum(cast.seconds for cast in found) == totals(table, formats).cast_seconds > 0
    for cast in found:
        assert {table.format(formats[n]).activations for n in cast.consumers if n} <= {
            table.format(cast.result).activations
        }


def test_a_tensor_from_outside_is_cast_where_the_layers_data_comes_from():
    table = odd_table(
        sources={ODD: ("in",), "c": (ODD, "in"), "": ("c",)},
        reads={"c": ("attention",)},
        casts=odd_table().casts[:1]
        + (dataclasses.replace(odd_table().casts[0], tensor="attention", consumers=("c",)),),
    )
    found = casts(model_graph(table, {**MIXED, "c": "int8"}))
    assert found[ODD, "c"] == ["attention"] and ("in", "c") not in found


def test_a_table_without_sources_is_drawn_from_its_casts():
    table = odd_table(sources={})
    graph = model_graph(table, MIXED)
    assert set(graph.edges) == {("in", ODD), (ODD, "c"), ("tail", "last")}  # c -> the tie's first layer were a cycle
    assert nx.is_directed_acyclic_graph(model_graph(made_up(50, seed=3), {f"layer{i}": "fp32" for i in range(50)}))


def test_cycles_of_an_edited_table_are_left_out():
    graph = model_graph(odd_table(sources={"c": ("last", "c"), "last": ("c",)}), MIXED)
    assert nx.is_directed_acyclic_graph(graph) and graph.number_of_edges() == 1
