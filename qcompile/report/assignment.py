"""What was assigned, what it costs beside the uniform formats, and why: tables for people, values for machines."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from qcompile.assign.assignment import Assignment
from qcompile.assign.table import SensitivityTable, Uniform
from qcompile.assign.totals import Totals, totals, uniform_formats
from qcompile.report import units
from qcompile.report.tables import table


def groups_table(assignment: Assignment, sensitivities: SensitivityTable) -> Table:
    """One row a group: its format, what it costs so, and why."""
    rows = []
    for group in sensitivities.groups:
        name = assignment.formats[group.name]
        entry = group.entries[name]
        others = f" + {len(group.layers) - 1}" if len(group.layers) > 1 else ""
        time = units.microseconds(entry.seconds * 1e6) + ("" if entry.measured else " ?")
        why = assignment.why[group.layers[0]] if group.layers else ""
        rows.append([group.name + others, name, time, units.size(entry.bytes), number(entry.alone), why])
    headers = ["layer", "format", "us", "size", sensitivities.metric, "why"]
    return table(headers, rows, right=["us", "size", sensitivities.metric])


def comparison(assignment: Assignment, sensitivities: SensitivityTable) -> Table:
    """The assignment beside each uniform format, predicted; the measured figures of these where the table has them."""
    rows = [_row("this plan", assignment.totals, sensitivities, "")]
    for row in sensitivities.formats:
        sums = totals(sensitivities, uniform_formats(sensitivities, row.name))
        rows.append(_row(f"all {row.name}", sums, sensitivities, row.name))
    headers = ["predicted", "us", "of them casts", "size", sensitivities.metric, "measured us", "measured loss"]
    return table(headers, rows, right=headers[1:])


def _row(title: str, sums: Totals, sensitivities: SensitivityTable, name: str) -> list[str]:
    real = sensitivities.uniform.get(name)
    seconds = whole_seconds(real, sums)
    return [
        title,
        units.microseconds(sums.seconds * 1e6),
        units.microseconds(sums.cast_seconds * 1e6),
        units.size(sums.bytes),
        number(sums.loss),
        "" if seconds is None else units.microseconds(seconds * 1e6),
        number(real.loss) if real and real.loss is not None else "",
    ]


def whole_seconds(real: Uniform | None, sums: Totals) -> float | None:
    """Of a whole call, where one was timed; None where all that is known is the sum of its layers."""
    if real is None or real.seconds is None or math.isclose(real.seconds, sums.seconds):
        return None
    return real.seconds


def headline(assignment: Assignment, sensitivities: SensitivityTable) -> str:
    """ "least loss within 5000 us, at most 0.01 % above the optimum" """
    told = {"accuracy": "least loss", "latency": "least latency", "size": "least size"}[assignment.objective]
    limits = {
        "loss": lambda x: f"a loss of {number(x)} {sensitivities.metric}",
        "seconds": lambda x: f"{units.microseconds(x * 1e6)} us",
        "bytes": lambda x: units.size(int(x)),
    }
    kept = " and ".join(limits[name](limit) for name, limit in assignment.budgets.limits.items())
    within = f" within {kept}" if kept else ""
    if assignment.gap is None:
        how = f"by {assignment.method}"
    else:
        how = f"at most {100 * assignment.gap:.2g} % above the optimum" if assignment.gap > 1e-6 else "optimal"
    return f"{told}{within}, {how}"


def assignment_values(assignment: Assignment, sensitivities: SensitivityTable) -> dict[str, Any]:
    """For machines: seconds, bytes, and losses in units of the metric."""
    groups = []
    for group in sensitivities.groups:
        name = assignment.formats[group.name]
        entry = group.entries[name]
        why = assignment.why[group.layers[0]] if group.layers else ""
        costs = {"loss": entry.alone, "seconds": entry.seconds, "measured": entry.measured, "bytes": entry.bytes}
        groups.append({"name": group.name, "layers": group.layers, "format": name, **costs, "why": why})
    uniform = {
        row.name: values_of(totals(sensitivities, uniform_formats(sensitivities, row.name)))
        for row in sensitivities.formats
    }
    return {
        "model": sensitivities.model,
        "target": sensitivities.target,
        "metric": sensitivities.metric,
        "objective": assignment.objective,
        "budgets": assignment.budgets.limits,
        "method": assignment.method,
        "gap": assignment.gap,
        "predicted": values_of(assignment.totals),
        "uniform": uniform,
        "groups": groups,
    }


def values_of(sums: Totals) -> dict[str, float]:
    return {
        "loss": sums.loss,
        "seconds": sums.seconds,
        "cast_seconds": sums.cast_seconds,
        "bytes": sums.bytes,
    }


def number(value: float) -> str:
    """Three digits: 0.0123, 1.2e-05, 0."""
    return f"{value + 0.0:.3g}"  # not -0
