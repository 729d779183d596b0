"""Places for the nodes of an acyclic graph: layers from top to bottom, few crossings, straight main lines.

After Sugiyama, Tagawa and Toda, Methods for Visual Understanding of Hierarchical System Structures, 1981: longest
paths give layers, edges across layers get a place in each, order follows the means of neighbours.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

SWEEPS = 16

Spot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """places: centre of each node. bends: by edge, its places in the layers that it crosses. size: width and height."""

    places: Mapping[str, Spot]
    bends: Mapping[tuple[str, str], tuple[Spot, ...]]
    size: Spot


def layered(graph: nx.DiGraph, width: float, pitch: float, gap: float, lane: float) -> Layout:
    """width: of a node. pitch: from layer to layer. gap: between neighbours. lane: width of an edge that passes by."""
    rank = _ranks(graph)
    rows: list[list[Hashable]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    links = nx.Graph()
    for name in graph:
        links.add_node(name)
        rows[rank[name]].append(name)
    lanes: dict[tuple[str, str], list[Hashable]] = {}
    for source, reader in graph.edges:
        passed: list[Hashable] = [(source, r) for r in range(rank[source] + 1, rank[reader])]  # one for all its readers
        lanes[source, reader] = passed
        for r, spot in enumerate(passed, rank[source] + 1):
            if spot not in links:
                rows[r].append(spot)
        nx.add_path(links, [source, *passed, reader])
    row_of = {spot: r for r, row in enumerate(rows) for spot in row}
    _order(rows, links, row_of)
    across = _across(rows, links, row_of, lane, width, gap)
    left = min((x - width / 2 for x in across.values()), default=0.0)
    at = {spot: (x - left, (row_of[spot] + 0.5) * pitch) for spot, x in across.items()}
    return Layout(
        {name: at[name] for name in graph},
        {edge: tuple(at[spot] for spot in passed) for edge, passed in lanes.items()},
        (max((x + width / 2 for x, _ in at.values()), default=0.0), len(rows) * pitch),
    )


def _ranks(graph: nx.DiGraph) -> dict[str, int]:
    """Longest path from a source; sources themselves just above what reads them first."""
    rank = {name: i for i, names in enumerate(nx.topological_generations(graph)) for name in names}
    for name in graph:
        if graph.in_degree(name) == 0 and graph.out_degree(name):
            rank[name] = min(rank[reader] for reader in graph.successors(name)) - 1
    return rank


def _order(rows: list[list[Hashable]], links: nx.Graph, row_of: Mapping[Hashable, int]) -> None:
    """Sorts each row by the mean position of its neighbours in the row above, then below, and so on."""
    position = {spot: float(i) for row in rows for i, spot in enumerate(row)}
    for sweep in range(SWEEPS):
        step = -1 if sweep % 2 == 0 else 1
        for row in rows if step < 0 else reversed(rows):
            means = {}
            for spot in row:
                near = [position[other] for other in links[spot] if row_of[other] == row_of[spot] + step]
                means[spot] = sum(near) / len(near) if near else position[spot]
            row.sort(key=means.__getitem__)
            position.update({spot: float(i) for i, spot in enumerate(row)})


def _across(
    rows: Sequence[Sequence[Hashable]],
    links: nx.Graph,
    row_of: Mapping[Hashable, int],
    lane: float,
    width: float,
    gap: float,
) -> dict[Hashable, float]:
    """Centres: each near the mean of its neighbours', in the row's order, without overlap."""
    wide = {spot: lane if isinstance(spot, tuple) else width for spot in row_of}
    x = dict.fromkeys(row_of, 0.0)
    for sweep in range(SWEEPS):
        steps = {-1, 1} if sweep >= SWEEPS - 2 else {-1} if sweep % 2 == 0 else {1}
        for row in rows if sweep % 2 == 0 else reversed(rows):
            offsets = [0.0]
            for one, other in pairwise(row):
                offsets.append(offsets[-1] + (wide[one] + wide[other]) / 2 + gap)
            wanted = []
            for spot in row:
                pulls = {other: _pull(other) for other in links[spot] if row_of[other] - row_of[spot] in steps}
                total = sum(pulls.values())
                wanted.append(sum(pull * x[other] for other, pull in pulls.items()) / total if total else x[spot])
            flat = _rising([w - o for w, o in zip(wanted, offsets, strict=True)], [_pull(spot) for spot in row])
            x.update({spot: value + offset for spot, value, offset in zip(row, flat, offsets, strict=True)})
    return x


def _pull(spot: Hashable) -> float:
    """How much a place counts: edges make way, nodes stay in line."""
    return 0.001 if isinstance(spot, tuple) else 1.0


def _rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest sequence, by weighted squares, that never falls: pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, heavy, length = blocks.pop()
            total = heavy + block[1]
            block = ((mean * heavy + block[0] * block[1]) / total, total, length + block[2])
        blocks.append(block)
    return [mean for mean, _, length in blocks for _ in range(length)]
