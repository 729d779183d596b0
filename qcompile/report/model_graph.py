"""The model as a graph of layers, with the casts that a choice of formats puts between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import networkx as nx

from qcompile.assign.table import FLOAT, OUTSIDE, SensitivityTable
from qcompile.assign.totals import made_casts

OUTPUTS = OUTSIDE  # the node that stands for what the model returns


@dataclass(frozen=True, slots=True)
class MadeCast:
    """A tensor that is turned from the format ``source`` into ``result``, for the groups ``consumers``.

    elements: how many numbers. seconds: of one call.
    """

    tensor: str
    elements: int
    producer: str
    consumers: tuple[str, ...]
    source: str
    result: str
    seconds: float


def model_graph(table: SensitivityTable, formats: Mapping[str, str]) -> nx.DiGraph:
    """Nodes: layers in groups (``group``: its name), model inputs and ``OUTPUTS`` (``group``: None).

    Edges: who reads whose result, perhaps through operators in no group; ``casts``: what is cast on the way.
    formats: group -> format.
    """
    graph = nx.DiGraph()
    for group, layers in _layers(table).items():
        graph.add_nodes_from(layers, group=group)
    edges = _sources(table) if table.sources else _of_casts(table)
    for source, reader in edges:
        for name in (source, reader):
            if name not in graph:
                graph.add_node(name, group=None)
        if not nx.has_path(graph, reader, source):  # a table that was edited by hand may have a cycle
            graph.add_edge(source, reader, casts=[])
    for cast in casts_of(table, formats):
        for reader in _readers(table, cast):
            before = list(graph.predecessors(reader))
            for source in (
                [cast.tensor] if cast.tensor in before else before[:1]
            ):  # made outside: where its data is from
                graph.edges[source, reader]["casts"].append(cast)
    return graph


def casts_of(table: SensitivityTable, formats: Mapping[str, str]) -> list[MadeCast]:
    """All casts that these formats need."""
    dtype = {row.name: row.activations for row in table.formats}
    return [
        MadeCast(
            cast.tensor,
            cast.elements,
            cast.producer,
            tuple(name for name in cast.consumers if dtype[formats.get(name, FLOAT)] == dtype[result]),
            made,
            result,
            seconds,
        )
        for cast, made, result, seconds in made_casts(table, table.casts, formats)
    ]


def _layers(table: SensitivityTable) -> dict[str, tuple[str, ...]]:
    return {group.name: group.layers or (group.name,) for group in table.groups}


def _sources(table: SensitivityTable) -> Iterator[tuple[str, str]]:
    for layer, sources in table.sources.items():
        for source in sources:
            yield source, layer or OUTPUTS


def _of_casts(table: SensitivityTable) -> Iterator[tuple[str, str]]:
    """For a table that does not say which layer reads which: from group to group."""
    layers = _layers(table)
    for cast in table.casts:
        known = cast.tensor in layers.get(cast.producer, ())
        source = cast.tensor if known or cast.producer == OUTSIDE else layers[cast.producer][-1]
        for reader in cast.consumers:
            yield source, layers[reader][0] if reader else OUTPUTS


def _readers(table: SensitivityTable, cast: MadeCast) -> Iterator[str]:
    """The layers that read the result of a cast; the first of a group where the table does not say which."""
    layers = _layers(table)
    for name in cast.consumers:
        own = layers.get(name, ())
        told = [x for x in own if cast.tensor in (*table.reads.get(x, ()), *table.residuals.get(x, ()))]
        yield from told or own[:1]
