"""Everything that a report shows, as values for machines; the page is drawn from the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any

from qcompile.assign.assignment import Assignment
from qcompile.assign.pareto import Point
from qcompile.assign.table import FLOAT, Group, SensitivityTable, Uniform
from qcompile.assign.totals import totals, uniform_formats
from qcompile.report.assignment import headline, values_of, whole_seconds
from qcompile.report.model_graph import casts_of, model_graph
from qcompile.report.pareto import Rivals, pareto_values

FORMAT, VERSION = "qcompile.report", 1


def report_values(
    table: SensitivityTable,
    assignment: Assignment | None,
    points: Sequence[Point],
    rivals: Rivals | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Times in seconds, sizes in bytes, losses in units of the metric.

    Without an assignment, formats of groups and casts are those of the fastest uniform format.
    """
    name, formats = shown_plan(table, assignment)
    graph = model_graph(table, formats)
    why = assignment.why if assignment else {}
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": table.model,
        "model_sha256": table.model_sha256,
        "target": table.target,
        "device": table.device,
        "threads": table.threads,
        "metric": table.metric,
        "baseline": table.baseline,
        "samples": table.sample_count,
        "formats": [row.name for row in table.formats],
        "notes": list(table.notes),
        "facts": dict(facts),
        "measured_share": measured_share(table),
        "plan": _plan(table, name, formats, assignment),
        "uniform": [_uniform(table, row.name) for row in table.formats],
        "groups": [_group(group, formats[group.name], why) for group in table.groups],
        "layers": [{"name": node, "group": group} for node, group in graph.nodes(data="group")],
        "edges": [
            {"source": source, "reader": reader, "casts": [asdict(cast) for cast in casts]}
            for source, reader, casts in graph.edges(data="casts")
        ],
        "casts": [asdict(cast) for cast in casts_of(table, formats)],
        "checks": list(_checks(table)),
        "pairs": [asdict(pair) for pair in table.pairs],
        "front": pareto_values(points, table, rivals),
    }


def shown_plan(table: SensitivityTable, assignment: Assignment | None) -> tuple[str, dict[str, str]]:
    """The name and the formats of what is shown: the assignment, or the fastest uniform format."""
    if assignment is not None:
        return "this plan", dict(assignment.formats)
    uniform = {row.name: uniform_formats(table, row.name) for row in table.formats}
    fastest = min(uniform, key=lambda name: totals(table, uniform[name]).seconds)
    return f"all {fastest}", uniform[fastest]


def measured_share(table: SensitivityTable) -> float:
    """Share of the entries' seconds that were measured."""
    entries = [entry for group in table.groups for entry in group.entries.values()]
    total = sum(entry.seconds for entry in entries)
    return sum(entry.seconds for entry in entries if entry.measured) / total if total else 0.0


def _plan(
    table: SensitivityTable, name: str, formats: Mapping[str, str], assignment: Assignment | None
) -> dict[str, Any]:
    values: dict[str, Any] = {"name": name, "assigned": assignment is not None, **values_of(totals(table, formats))}
    if assignment is not None:
        values |= values_of(assignment.totals)
        values |= {"objective": assignment.objective, "budgets": assignment.budgets.limits}
        values |= {"method": assignment.method, "gap": assignment.gap, "headline": headline(assignment, table)}
    return values


def _uniform(table: SensitivityTable, name: str) -> dict[str, Any]:
    formats = uniform_formats(table, name)
    sums, real = totals(table, formats), table.uniform.get(name, Uniform())
    measured = {"loss": _finite(real.loss), "seconds": whole_seconds(real, sums), "bytes": real.bytes}
    return {"name": name, "formats": formats, **values_of(sums), "measured": measured}


def _group(group: Group, chosen: str, why: Mapping[str, str]) -> dict[str, Any]:
    entries = {
        name: {**asdict(entry), "upto": _finite(entry.upto), "scores": dict(entry.scores)}
        for name, entry in group.entries.items()
    }
    return {
        "name": group.name,
        "layers": list(group.layers),
        "tie": group.why,
        "format": chosen,
        "why": why.get(group.layers[0], "") if group.layers else "",
        "entries": entries,
        "missing": dict(group.missing),
    }


def _checks(table: SensitivityTable) -> Iterator[dict[str, Any]]:
    """Losses predicted by sums and measured: of whole configurations, uniform formats, and the first groups alone."""
    for found in table.checks:
        told = {"kind": "checked", "name": found.name, "predicted": found.predicted, "measured": found.measured}
        yield {**told, "formats": dict(found.formats)}
    for row in table.formats:
        real = table.uniform.get(row.name)
        if row.name != FLOAT and real is not None and _finite(real.loss) is not None:
            predicted = totals(table, uniform_formats(table, row.name)).loss
            yield {"kind": "uniform", "name": f"all {row.name}", "predicted": predicted, "measured": real.loss}
    for row in table.formats:
        having = [group.entries[row.name] for group in table.groups if row.name in group.entries]
        sums = accumulate(entry.alone for entry in having)
        for i, (entry, predicted) in enumerate(zip(having, sums, strict=True), 1):
            if row.name != FLOAT and _finite(entry.upto) is not None:
                name = f"first {i} in {row.name}"
                told = {"kind": "up to here", "name": name, "predicted": predicted, "measured": entry.upto}
                yield {**told, "format": row.name}


def _finite(value: float | None) -> float | None:
    """A loss of many layers together may be no number: there is nothing to draw, and JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None
