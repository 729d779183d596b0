"""Errors layer by layer, as a table for terminals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from qcompile.report.tables import table

if TYPE_CHECKING:
    from qcompile.analyze.debug import LayerError


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
