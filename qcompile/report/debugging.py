"""Errors layer by layer: a table for terminals, a page for browsers, values for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from qcompile.report.colors import Heat
from qcompile.report.files import write_whole
from qcompile.report.page import check_report, is_json
from qcompile.report.tables import table
from qcompile.report.templating import environment

if TYPE_CHECKING:
    from qcompile.analyze.debug import LayerError

WORST = 3  # layers named at the head of a page


def debug_table(rows: Sequence[LayerError]) -> Table:
    """One row a layer, in the order given."""
    numbers = ["sqnr alone", "sqnr up to here", "largest alone", "largest up to here", "clipped"]
    return table(
        ["layer", "format", *numbers],
        [
            [
                row.node,
                row.format,
                f"{row.sqnr_alone:.1f} dB",
                f"{row.sqnr_upto:.1f} dB",
                f"{row.largest_alone:.3g}",
                f"{row.largest_upto:.3g}",
                "" if row.clipped is None else f"{row.clipped:.2%}",
            ]
            for row in rows
        ],
        right=numbers,
    )


def write_debug_report(
    path: Path, rows: Sequence[LayerError], order: Iterable[str], model: str, target: str, inputs: str
) -> None:
    """Writes a page with all layers, or, if ``path`` ends in .json, the values in it.

    rows: at least one, worst first. order: names of layers, in order of execution. inputs: what they were run on.
    """
    check_report(path)
    place = {name: i for i, name in enumerate(order)}
    layers = [asdict(row) for row in sorted(rows, key=lambda row: place.get(row.layer, len(place)))]
    values = {"format": "qcompile.debug", "version": 1, "model": model, "target": target, "inputs": inputs}
    values["layers"] = layers
    write_whole(path, json.dumps(values, indent=1) + "\n" if is_json(path) else _page(values, rows))


def _page(values: dict[str, Any], rows: Sequence[LayerError]) -> str:
    noise = Heat(_noise(decibels) for row in rows for decibels in (row.sqnr_alone, row.sqnr_upto))
    templates = environment()
    templates.filters["step"] = lambda decibels: noise.step(_noise(decibels))
    page = templates.get_template("debug.html")
    return page.render(v=values, worst=[asdict(row) for row in rows[:WORST]])


def _noise(decibels: float) -> float:
    """Noise over signal."""
    return 10 ** (-decibels / 10)
