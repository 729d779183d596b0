"""``qcompile analyze``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcompile.cli.checks import check_calibration
from qcompile.cli.console import remark, show, show_json
from qcompile.cli.mixed import chosen_formats
from qcompile.cli.options import (
    OUT,
    BiasCorrection,
    CalibMethod,
    Equalize,
    LearnRounding,
    Percentile,
    input_shapes,
    names,
)
from qcompile.cli.planning import CalibrationWish, Method, format_plans, timed
from qcompile.formats import GROUP, format_of
from qcompile.report.files import check_place, write_whole

if TYPE_CHECKING:
    from qcompile.assign.table import SensitivityTable

SHOWN = 20  # groups in the printed table


def analyze(
    model: Annotated[Path, typer.Argument(help="The float ONNX model.")],
    out: Annotated[Path, typer.Option(*OUT, help="The table of sensitivities, for 'qcompile assign'.")],
    calib_data: Annotated[
        Path | None, typer.Option("--calib-data", help="Samples for ranges: .npz by input name, or a folder.")
    ] = None,
    eval_data: Annotated[
        Path | None, typer.Option("--eval-data", help="Samples to measure on, with labels if any; else --calib-data.")
    ] = None,
    target: Annotated[str, typer.Option("--target", help="See 'qcompile targets'.")] = "native",
    formats: Annotated[
        list[str] | None, typer.Option("--formats", metavar="a,b", help="Formats to measure, besides fp32 (int8).")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="kl, mse, sqnr, cosine, top1, perplexity, module:function; else found from the model."
        ),
    ] = None,
    num_samples: Annotated[int | None, typer.Option("--num-samples", min=1, help="Measure on the first N.")] = None,
    method: CalibMethod = Method.error,
    percentile: Percentile = None,
    equalize: Equalize = True,
    rounding: LearnRounding = True,
    bias_correction: BiasCorrection = True,
    group_size: Annotated[int, typer.Option("--group-size", help="Of w4a8: int4 weights that share a scale.")] = GROUP,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude-nodes", metavar="a,b", help="Nodes, layers, types left in float.")
    ] = None,
    shapes: Annotated[
        list[str] | None, typer.Option("--input-shapes", metavar="x:[1,3,8,8]", help="Fix inputs; repeatable.")
    ] = None,
    probes: Annotated[
        int, typer.Option("--hessian", min=0, metavar="N", help="Second-order scores, from N disturbances a group.")
    ] = 0,
    alone: Annotated[bool, typer.Option("--alone", help="Measure no group together with all before it.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads that latencies are for.")] = 1,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Predict latencies, do not time layers on this machine.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted analysis stopped.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="report.html", help="A page for any browser; or a .json file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table for machines.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="All groups, seconds, tracebacks.")] = False,
) -> None:
    """Measure what each group of layers costs in accuracy, in each format.

    \b
    Examples:
      qcompile analyze model.onnx --calib-data samples.npz -o table.json
      qcompile analyze model.onnx --calib-data c.npz --eval-data e.npz --metric top1 --workers 4 -o table.json
      qcompile analyze model.onnx --calib-data c.npz --hessian 4 -o table.json --resume
    """
    import qcompile as qc
    from qcompile.analyze.analyze import analyze as run
    from qcompile.analyze.data import evaluation_data
    from qcompile.analyze.detect import LABELLED, check_labels, choose_metric
    from qcompile.calibrate import RANDOM_DATA_WARNING, random_data
    from qcompile.report.page import check_report, write_report
    from qcompile.targets.select import select_row

    check_calibration(method, percentile, calib_data, eval_data)
    if report is not None:
        check_report(report, out)
    check_place(out)
    row = select_row(target)
    chosen = chosen_formats(row, names(formats or [])) or ("int8",)
    times: dict[str, float] = {}
    with timed("import", times, "importing the model"):
        imported = qc.import_onnx(model, input_shapes(shapes or []))
    for note in imported.notes:
        remark(f"note: {note}")
    source = eval_data or calib_data or list(random_data(imported.inputs))
    data = evaluation_data(source, imported.inputs, num_samples)
    if choose_metric(imported, metric).name in LABELLED:
        check_labels(imported, str(metric), next(data.samples()))
    wish = CalibrationWish(
        calib_data,
        method.value,
        percentile,
        None,
        names(exclude or []),
        False,
        group_size=group_size,
        equalize=equalize,
        rounding=rounding,
        bias_correction=bias_correction,
    )
    scaled, plans = format_plans(imported, row, chosen, wish, times)
    if isinstance(source, list) and not any(format_of(name).codes for name in plans):
        remark(RANDOM_DATA_WARNING)  # which those who make codes have said already
    start = time.perf_counter()
    checkpoint = out.with_name(f".{out.name}.checkpoint")
    with _kept(checkpoint), _progress(_count(source, num_samples, data.batch)) as progress:
        table = run(
            scaled,
            plans,
            data,
            row,
            metric=metric,
            accumulate=not alone,
            probes=probes,
            workers=workers,
            measure_seconds=not no_measure,
            threads=threads,
            checkpoint=checkpoint,
            resume=resume,
            progress=progress,
        )
    times["analyze"] = time.perf_counter() - start
    for note in data.notes:
        remark(f"note: {note}")
    write_whole(out, table.to_json())
    if report is not None:
        write_report(report, table)
        remark(f"report in {report}")
    if as_json:
        show_json(_listed(table))
        return
    _show(table, verbose)
    if verbose:
        show("seconds    " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in times.items()))
    show(f"table      {out}")


@contextlib.contextmanager
def _kept(checkpoint: Path) -> Iterator[None]:
    """Says how to go on with an analysis that ends before it is done."""
    try:
        yield
    except BaseException:
        if checkpoint.exists():
            remark("note: what was measured is kept; the same command with --resume goes on from there")
        raise


@contextlib.contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """On a terminal a bar of samples, which pulses while the simulation is compiled."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda samples: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("compiling", total=None)
        yield lambda samples: bar.update(task, description="samples", total=total, completed=samples)


def _count(data: object, num_samples: int | None, batch: int) -> int | None:
    """How many runs of the model there are, where that is known at once."""
    found = len(data) if isinstance(data, list) else None
    if isinstance(data, Path) and data.suffix == ".npz":
        from qcompile.calibrate.arrays import open_npz

        found = min((rows.shape[0] for rows in open_npz(data).values() if rows.shape), default=None)
    rows = min((n for n in (found, num_samples) if n is not None), default=None)
    return None if rows is None else -(-rows // batch)


def _listed(table: SensitivityTable) -> dict[str, object]:
    return {
        "model": table.model,
        "metric": table.metric,
        "baseline": table.baseline,
        "samples": table.sample_count,
        "groups": [
            {
                "name": group.name,
                "layers": group.layers,
                "formats": {
                    name: {"alone": entry.alone, "upto": entry.upto, "bytes": entry.bytes, "seconds": entry.seconds}
                    | dict(entry.scores)
                    for name, entry in group.entries.items()
                },
                "missing": dict(group.missing),
            }
            for group in table.groups
        ],
        "uniform": {name: row.loss for name, row in table.uniform.items()},
    }


def _show(table: SensitivityTable, verbose: bool) -> None:
    from qcompile.report.sensitivity import sensitivity_table, summary

    show(summary(table))
    show(sensitivity_table(table, None if verbose else SHOWN))
    if not verbose and len(table.groups) > SHOWN:
        show(f"... {len(table.groups) - SHOWN} groups that matter less; -v shows all")
