"""The model as a picture: what its layers are called, which format they have, where casts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from qcompile.report import units
from qcompile.report.assignment import number
from qcompile.report.layering import Spot, layered
from qcompile.report.model_graph import MadeCast

WIDTH, HEIGHT, PITCH, GAP, LANE = 176.0, 36.0, 58.0, 20.0, 8.0  # of boxes, in pixels


@dataclass(frozen=True, slots=True)
class Box:
    """A layer at its upper left corner. group, format: indices into the report's; None for inputs and outputs."""

    x: float
    y: float
    lines: tuple[str, ...]
    title: str
    group: int | None = None
    format: int | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """path: SVG's. title: of the casts on the way, "" if none."""

    path: str
    title: str


@dataclass(frozen=True, slots=True)
class Picture:
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    width: float
    height: float


def draw(graph: nx.DiGraph, values: Mapping[str, Any]) -> Picture:
    """graph: as ``model_graph`` has it. values: of the report."""
    layout = layered(graph, WIDTH, PITCH, GAP, LANE)
    groups = {group["name"]: i for i, group in enumerate(values["groups"])}
    ties = {name: i for i, name in enumerate((g["name"] for g in values["groups"] if len(g["layers"]) > 1), 1)}
    boxes = []
    for name, owner in graph.nodes(data="group"):
        x, y = layout.places[name]
        corner = (x - WIDTH / 2, y - HEIGHT / 2)
        if owner is None:
            word = "input" if name else "outputs"
            boxes.append(Box(*corner, (short(name), word) if name else (word,), f"{word} {name}".strip()))
            continue
        group = values["groups"][groups[owner]]
        entry = group["entries"][group["format"]]
        cost = f"{time(entry)} us"
        second = f"{group['format']}, tie {ties[owner]}" if owner in ties else f"{group['format']}, {cost}"
        title = _title(name, group, values["metric"])
        boxes.append(
            Box(*corner, (short(name), second), title, groups[owner], values["formats"].index(group["format"]))
        )
    arrows = [
        Arrow(_path(layout.places[one], layout.bends[one, other], layout.places[other]), _told(casts))
        for one, other, casts in graph.edges(data="casts")
    ]
    return Picture(tuple(boxes), tuple(sorted(arrows, key=lambda arrow: bool(arrow.title))), *layout.size)


def time(entry: Mapping[str, Any]) -> str:
    """Microseconds, with a "?" behind what was predicted."""
    return units.microseconds(entry["seconds"] * 1e6) + ("" if entry["measured"] else " ?")


def short(name: str, most: int = 22) -> str:
    """The end of a long name says more than its middle: "model/conv…Conv2D;bias"."""
    return name if len(name) <= most else f"{name[: most // 3]}…{name[len(name) + most // 3 + 1 - most :]}"


def _title(name: str, group: Mapping[str, Any], metric: str) -> str:
    lines = [name]
    if len(group["layers"]) > 1:
        lines.append(f"one format for {len(group['layers'])} layers: {group['tie'] or 'tied'}")
    for format_, entry in group["entries"].items():
        mark = "> " if format_ == group["format"] else ""
        loss = f"{number(entry['alone'])} {metric}"
        lines.append(f"{mark}{format_}: {loss}, {time(entry)} us, {units.size(entry['bytes'])}")
    lines += [f"{format_}: none, {reason}" for format_, reason in group["missing"].items()]
    if group["why"]:
        lines.append(group["why"])
    return "\n".join(lines)


def _told(casts: Sequence[MadeCast]) -> str:
    return "\n".join(
        f"cast {c.source} to {c.result}: {c.tensor}, {c.elements} numbers, {units.microseconds(c.seconds * 1e6)} us"
        for c in casts
    )


def _path(start: Spot, bends: Sequence[Spot], end: Spot) -> str:
    """Down from a box, straight through the layers that it crosses, curved between, to the top of another."""
    half = HEIGHT / 2
    text, (x, y) = f"M{start[0]:.1f},{start[1] + half:.1f}", (start[0], start[1] + half)
    for i, (to_x, to_y) in enumerate((*bends, end)):
        top = to_y - half
        middle = (y + top) / 2
        text += f"C{x:.1f},{middle:.1f} {to_x:.1f},{middle:.1f} {to_x:.1f},{top:.1f}"
        x, y = to_x, top
        if i < len(bends):
            y = to_y + half
            text += f"V{y:.1f}"
    return text
