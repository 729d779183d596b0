"""The front of accuracy, latency and size as a table, and as values for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from qcompile.assign.pareto import Point
from qcompile.assign.table import SensitivityTable
from qcompile.assign.totals import Totals
from qcompile.report import units
from qcompile.report.assignment import number, values_of
from qcompile.report.tables import table

Rivals = Mapping[str, Sequence[Totals | None]]  # method -> what it reaches within latency and size of each point


def pareto_table(points: Sequence[Point], sensitivities: SensitivityTable, rivals: Rivals | None = None) -> Table:
    """One row a point, fastest first; uniform formats by their names, with a note if something is better in all.

    rivals: methods to compare with, a column of losses each; "-" where one ends outside.
    """
    rivals = rivals or {}
    rows = [
        [
            str(i),
            units.microseconds(point.totals.seconds * 1e6),
            number(point.totals.loss),
            units.size(point.totals.bytes),
            mixture(point, sensitivities),
            remark(point),
            *("-" if (sums := reached[i]) is None else number(sums.loss) for reached in rivals.values()),
        ]
        for i, point in enumerate(points)
    ]
    headers = ["point", "us", sensitivities.metric, "size", "formats of groups", "uniform", *rivals]
    return table(headers, rows, right=[*headers[:4], *rivals])


def mixture(point: Point, sensitivities: SensitivityTable) -> str:
    """ "12 int8, 3 fp32", in the table's order of formats."""
    counts = Counter(point.formats.values())
    return ", ".join(f"{counts[row.name]} {row.name}" for row in sensitivities.formats if counts[row.name])


def remark(point: Point) -> str:
    """ "all int8, not on the front" """
    if not point.name:
        return ""
    return f"all {point.name}" + ("" if point.front else ", not on the front")


def pareto_values(
    points: Sequence[Point], sensitivities: SensitivityTable, rivals: Rivals | None = None
) -> dict[str, Any]:
    """For machines: seconds, bytes, losses in units of the metric, and the format of every group."""
    return {
        "model": sensitivities.model,
        "target": sensitivities.target,
        "metric": sensitivities.metric,
        "points": [
            {**values_of(p.totals), "front": p.front, "uniform": p.name or None, "formats": dict(p.formats)}
            for p in points
        ],
        "compared": {
            name: [None if sums is None else values_of(sums) for sums in reached]
            for name, reached in (rivals or {}).items()
        },
    }
