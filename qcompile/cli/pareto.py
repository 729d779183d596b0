"""``qcompile pareto``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcompile.cli.console import remark, show, show_json, step
from qcompile.report.files import make_folder, write_whole


def pareto(
    table: Annotated[Path, typer.Argument(help="Sensitivities, as 'qcompile analyze' writes them.")],
    report: Annotated[
        Path | None, typer.Option("--report", metavar="pareto.html", help="A page for any browser; or a .json file.")
    ] = None,
    plans: Annotated[
        Path | None, typer.Option("--plans", metavar="DIR", help="Folder for the plan of each point: 00.json, ...")
    ] = None,
    points: Annotated[int, typer.Option("--points", min=2, help="Steps of latency for each limit of size.")] = 12,
    sizes: Annotated[int, typer.Option("--sizes", min=0, help="Limits of size, besides none.")] = 3,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also what simpler methods reach within each point's latency and size.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show what is reachable in accuracy, latency and size together; every point is a plan that can be built.

    \b
    Examples:
      qcompile pareto table.json --report pareto.html
      qcompile pareto table.json --plans plans/
      qcompile build model.onnx --plan plans/07.json -o out/
    """
    import qcompile as qc
    from qcompile.assign.assignment import plan_of_formats
    from qcompile.assign.greedy import rivals
    from qcompile.report.page import check_report, write_report
    from qcompile.report.pareto import pareto_table, pareto_values

    sensitivities = qc.SensitivityTable.load(table)
    if report is not None:
        check_report(report)
    if plans is not None:
        make_folder(plans)
    with step("looking for the front") as update:
        found = qc.pareto(
            sensitivities, points=points, sizes=sizes, report=lambda done, all_: update(f"{done} of {all_}")
        )
    reached = rivals(sensitivities, [point.totals for point in found]) if compare else {}
    if plans is not None:
        texts = [plan_of_formats(sensitivities, point.formats).to_json() for point in found]
        for i, text in enumerate(texts):
            write_whole(plans / f"{i:02d}.json", text)
    if report is not None:
        write_report(report, sensitivities, points=found, rivals=reached)
        remark(f"report in {report}")
    if as_json:
        show_json(pareto_values(found, sensitivities, reached))
    else:
        show(pareto_table(found, sensitivities, reached))
