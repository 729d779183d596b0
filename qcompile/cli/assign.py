"""``qcompile assign``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from qcompile.cli.budgets import nbytes, seconds
from qcompile.cli.console import remark, show, show_json
from qcompile.cli.options import OUT
from qcompile.errors import QCompileError
from qcompile.report.files import check_place, write_whole


class Objective(StrEnum):
    latency = "latency"
    size = "size"
    accuracy = "accuracy"


class Way(StrEnum):
    program = "program"
    greedy = "greedy"
    hawq = "hawq"


def assign(
    table: Annotated[Path, typer.Argument(help="Sensitivities, as 'qcompile analyze' writes them.")],
    out: Annotated[Path | None, typer.Option(*OUT, help="The plan, for 'qcompile build --plan'.")] = None,
    latency: Annotated[
        str | None, typer.Option("--latency-budget", metavar="5ms", help="Predicted time of one call at most.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size-budget", metavar="2MB", help="Weights and other constants at most.")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option("--max-loss", min=0, help="Predicted loss at most, in units of the table's metric.")
    ] = None,
    objective: Annotated[
        Objective | None,
        typer.Option("--objective", help="What to make best; accuracy, or latency if only the loss is limited."),
    ] = None,
    method: Annotated[
        Way, typer.Option("--method", help="The integer program, or a simpler way to compare with.")
    ] = Way.program,
    gap: Annotated[float, typer.Option("--gap", min=0, help="Distance from the optimum allowed, relative.")] = 1e-4,
    time_limit: Annotated[float, typer.Option("--time-limit", min=0.1, help="Seconds for the search.")] = 10.0,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="plan.html", help="A page for any browser; or a .json file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Choose a format for each layer, within budgets, from a table of sensitivities.

    Layers whose latency was predicted, not measured, have a "?" behind it.

    \b
    Examples:
      qcompile assign table.json --latency-budget 5ms -o plan.json
      qcompile assign table.json --size-budget 2MB --max-loss 0.01 --objective latency -o plan.json
      qcompile build model.onnx --plan plan.json -o out/
    """
    import qcompile as qc
    from qcompile.assign.greedy import greedy, hawq
    from qcompile.report.assignment import assignment_values, comparison, groups_table, headline
    from qcompile.report.page import check_report, write_report

    if out is not None:
        check_place(out)
    if report is not None:
        check_report(report, out)
    budgets = {"max_loss": max_loss, "max_seconds": seconds(latency), "max_bytes": nbytes(size)}
    goal = objective.value if objective else None
    sensitivities = qc.SensitivityTable.load(table)
    if method is Way.hawq:
        if max_loss is not None or goal not in (None, "accuracy"):
            reason = "HAWQ's score orders layers but has no unit to limit"
            raise QCompileError(reason, node="--method hawq", remedy="give --latency-budget or --size-budget alone")
        result = hawq(sensitivities, max_seconds=budgets["max_seconds"], max_bytes=budgets["max_bytes"])
    elif method is Way.greedy:
        result = greedy(sensitivities, **budgets, objective=goal)
    else:
        result = qc.assign(sensitivities, **budgets, objective=goal, gap=gap, time_limit=time_limit)
    if out is not None:
        write_whole(out, qc.to_plan(result, sensitivities).to_json())
    if report is not None:
        write_report(report, sensitivities, result)
        remark(f"report in {report}")
    if as_json:
        show_json({**assignment_values(result, sensitivities), "plan": str(out) if out else None})
        return
    show(groups_table(result, sensitivities))
    show(comparison(result, sensitivities))
    show(headline(result, sensitivities))
    if out is not None:
        show(f"plan in {out}; edit it as you like, then: qcompile build {sensitivities.model} --plan {out} -o out/")
