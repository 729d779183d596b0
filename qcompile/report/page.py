"""The report on a table of sensitivities, and on a plan made from it: one HTML file that needs no network, or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any

from qcompile.assign.assignment import Assignment
from qcompile.assign.pareto import Point, pareto
from qcompile.assign.table import FLOAT, SensitivityTable
from qcompile.errors import QCompileError
from qcompile.report import colors, units
from qcompile.report.assignment import number
from qcompile.report.files import check_place, write_whole
from qcompile.report.pareto import Rivals, mixture, remark
from qcompile.report.sensitivity import metric_in_words
from qcompile.report.templating import environment
from qcompile.report.values import report_values, shown_plan


def check_report(path: Path, beside: Path | None = None) -> None:
    """Raises ``QCompileError`` where a report at ``path`` could not be written: before hours of work, not after.

    beside: another file that will be written.
    """
    if beside is not None and path.resolve() == beside.resolve():
        raise QCompileError("two results in one file", node=str(path), remedy="give the report another name")
    if path.suffix.lower() not in (".html", ".htm", ".json"):
        raise QCompileError("reports are pages or values", node=str(path), remedy="name an .html or a .json file")
    check_place(path)
    missing = [] if is_json(path) else [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        remedy = "pip install 'qcompile[report]', or name a .json file"
        raise QCompileError(f"reports need {' and '.join(missing)}", remedy=remedy)


def write_report(
    path: str | Path,
    table: SensitivityTable,
    assignment: Assignment | None = None,
    points: Sequence[Point] | None = None,
    rivals: Rivals | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes a page for any browser, or, if ``path`` ends in .json, the same as values (``report_values``).

    assignment: a plan to show; without one, the fastest uniform format is shown. points: the front, found here if None.
    rivals: methods to compare the front with. facts: (title, text) that the table does not have, for the head.
    """
    path = Path(path)
    check_report(path)
    if points is None:
        # Nobody asked for it: a quick one.
        points = pareto(table, points=8, sizes=1, gap=1e-3, time_limit=2.0) if table.groups else []
    if is_json(path):
        text = json.dumps(report_values(table, assignment, points, rivals, facts), indent=1) + "\n"
    else:
        text = report_html(table, assignment, points, rivals, facts)
    write_whole(path, text)


def report_html(
    table: SensitivityTable,
    assignment: Assignment | None,
    points: Sequence[Point],
    rivals: Rivals | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> str:
    """The page. Equal arguments give equal text."""
    from qcompile.report import checks_figure, graph_figure
    from qcompile.report.model_graph import model_graph

    values = report_values(table, assignment, points, rivals, facts)
    _, formats = shown_plan(table, assignment)
    heat = colors.Heat(_losses(values))
    templates = environment()
    templates.filters.update(
        time=graph_figure.time,
        short=graph_figure.short,
        step=heat.step,
        remark=remark,
        rival=lambda sums: "-" if sums is None else number(sums.loss),
        mixture=lambda point: mixture(point, table),
        having=lambda point, name: [group for group, chosen in point.formats.items() if chosen == name],
    )
    return templates.get_template("page.html").render(
        v=values,
        model=PurePath(table.model).name,
        metric=metric_in_words(table.metric),
        compared=_compared(values),
        against_uniform=_against_uniform(values),
        layers=_layers(values),
        lower=[name for name in values["formats"] if name != FLOAT],
        measured=_measured(values),
        scores=sorted({name for g in values["groups"] for e in g["entries"].values() for name in e["scores"]}),
        picture=graph_figure.draw(model_graph(table, formats), values),
        box_width=graph_figure.WIDTH,
        box_height=graph_figure.HEIGHT,
        heat_starts=heat.starts if heat.top > heat.bottom else [],
        heat_ratio=number(heat.starts[1] / heat.starts[0]),
        slowest=max((e["seconds"] for g in values["groups"] for e in g["entries"].values()), default=0) or 1,
        rest_seconds=table.rest_seconds,
        checks_picture=(
            checks_figure.predicted_against_measured(values["checks"], table.metric, values["formats"])
            if values["checks"]
            else ""
        ),
        front_pictures=_front(points, table, rivals, assignment) if points else [],
        points=points,
        rivals=rivals or {},
    )


def _front(
    points: Sequence[Point], table: SensitivityTable, rivals: Rivals | None, assignment: Assignment | None
) -> list[tuple[str, str]]:
    """(picture, caption)"""
    from qcompile.report.figures import titled
    from qcompile.report.pareto_figures import formats_map, loss_against_latency, loss_against_size

    chosen = assignment.totals if assignment else None
    titles = [
        f"{remark(point) or f'point {i}'}: {units.microseconds(point.totals.seconds * 1e6)} us, "
        f"{number(point.totals.loss)} {table.metric}, {units.size(point.totals.bytes)}; {mixture(point, table)}"
        for i, point in enumerate(points)
    ]
    return [
        (
            titled(loss_against_latency(points, table, rivals, chosen), titles),
            "Loss against latency; between two dots may be others.",
        ),
        (titled(loss_against_size(points, table, rivals, chosen), titles), "Loss against size of the same plans."),
        *([(formats_map(points, table), "Formats of the groups in each plan.")] if table.groups else []),
    ]


def _measured(values: Mapping[str, Any]) -> dict[str, str]:
    """What was measured of groups, and what it is called; mixed precision measures no group with all before it."""
    lower = [e for group in values["groups"] for name, e in group["entries"].items() if name != FLOAT]
    together = {"upto": "up to here"} if any(entry["upto"] is not None for entry in lower) else {}
    return {"alone": "alone", **together}


def is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _losses(values: Mapping[str, Any]) -> list[float]:
    entries = [entry for group in values["groups"] for entry in group["entries"].values()]
    return [entry[key] for entry in entries for key in ("alone", "upto") if entry[key] is not None]


def _layers(values: Mapping[str, Any]) -> Counter[str]:
    """How many have each format."""
    counts: Counter[str] = Counter()
    for group in values["groups"]:
        counts[group["format"]] += len(group["layers"])
    return counts


def _compared(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plan, if there is one, and the uniform formats; with losses of checks that had the same formats."""
    checks = [check for check in values["checks"] if "formats" in check]

    def row(plan: Mapping[str, Any], name: str, formats: Mapping[str, str]) -> dict[str, Any]:
        known = plan.get("measured", {"loss": None, "seconds": None})
        losses = [known["loss"], *(check["measured"] for check in checks if check["formats"] == formats)]
        loss = next((loss for loss in losses if loss is not None), None)
        return {**plan, "name": name, "measured_seconds": known["seconds"], "measured_loss": loss}

    rows = []
    if values["plan"]["assigned"]:
        rows.append(row(values["plan"], "this plan", {group["name"]: group["format"] for group in values["groups"]}))
    rows += [row(uniform, f"all {uniform['name']}", uniform["formats"]) for uniform in values["uniform"]]
    return rows


def _against_uniform(values: Mapping[str, Any]) -> str:
    """ "Predicted: 12.3 us, 40.0 KB, 0.0012 kl; 0.31x the time and 0.26x the size of all fp32, ..." """
    plan = values["plan"]
    told = [
        f"{plan['seconds'] / row['seconds']:.2f}x the time and {plan['bytes'] / row['bytes']:.2f}x the size of "
        f"all {row['name']}"
        for row in values["uniform"]
        if row["seconds"] and row["bytes"]
    ]
    loss = f"{number(plan['loss'])} {values['metric']}"
    head = f"Predicted: {units.microseconds(plan['seconds'] * 1e6)} us, {units.size(plan['bytes'])}, a loss of {loss}"
    return "; ".join([head, ", ".join(told)]) + "." if told else f"{head}."
