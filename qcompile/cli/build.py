"""``qcompile build``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcompile.cli.assign import Objective
from qcompile.cli.checks import (
    MIXED,
    PRECISIONS,
    check_calibration,
    check_gpu,
    check_group_size,
    check_integer_io,
    check_schedules,
    chosen_precision,
    given_plan,
)
from qcompile.cli.console import remark, show, show_json
from qcompile.cli.mixed import chosen_formats, mixed_plan, mixed_wish
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
from qcompile.cli.planning import CalibrationWish, Method, timed, tune_plans, uniform_plan
from qcompile.errors import QCompileError
from qcompile.formats import GROUP
from qcompile.report.files import check_place, make_folder

if TYPE_CHECKING:
    from qcompile.artifact import Artifact
    from qcompile.mixed.mixed import MixedPlan


def build(
    model: Annotated[Path, typer.Argument(help="The float (or QDQ) ONNX model.")],
    out: Annotated[Path, typer.Option(*OUT, help="Artifact folder; an older artifact there is replaced.")],
    target: Annotated[str, typer.Option("--target", help="See 'qcompile targets'.")] = "native",
    precision: Annotated[
        str,
        typer.Option(
            "--precision", metavar="|".join(PRECISIONS), help="Of every layer that has such a form; mixed: measured."
        ),
    ] = "int8",
    int8: Annotated[bool, typer.Option("--int8", help="Same as --precision int8.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Same as --precision fp32.")] = False,
    group_size: Annotated[
        int | None, typer.Option("--group-size", help="Of w4a8: int4 weights that share a scale (32).")
    ] = None,
    calib_data: Annotated[
        Path | None, typer.Option("--calib-data", help="Samples: .npz by input name, or a folder of .npy/.npz.")
    ] = None,
    method: CalibMethod = Method.error,
    percentile: Percentile = None,
    equalize: Equalize = True,
    rounding: LearnRounding = True,
    bias_correction: BiasCorrection = True,
    num_samples: Annotated[int | None, typer.Option("--num-samples", help="Use the first N samples only.")] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan.json instead of calibration.")] = None,
    eval_data: Annotated[
        Path | None, typer.Option("--eval-data", help="Mixed: samples to measure plans on, with labels if any.")
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option("--max-drop", metavar="0.5%", help="Mixed: of the metric, in percent of fp32's or in its units."),
    ] = None,
    latency: Annotated[
        str | None, typer.Option("--latency-budget", metavar="5ms", help="Mixed: time of one call at most.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size-budget", metavar="2MB", help="Mixed: weights and other constants at most.")
    ] = None,
    objective: Annotated[
        Objective | None,
        typer.Option("--objective", help="Mixed: what to make best; accuracy, or latency if only the drop is limited."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="Mixed: of --max-drop: top1, perplexity, kl, mse, cosine, module:function."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--formats", metavar="a,b", help="Mixed: to choose among, besides fp32; default: by target."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Mixed: sensitivities to use; if it is not there, left there.")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Mixed: processes that measure (1).")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Mixed: a page with all that was found.")] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude-nodes", metavar="a,b", help="Nodes, layers, operator types left in float."),
    ] = None,
    integer_io: Annotated[
        bool, typer.Option("--integer-io", help="Model inputs and outputs are codes, not float32.")
    ] = False,
    shapes: Annotated[
        list[str] | None, typer.Option("--input-shapes", metavar="x:[1,3,8,8]", help="Fix inputs; repeatable.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads that kernels are split for.")] = 1,
    tuning_records: Annotated[
        list[str] | None,
        typer.Option(
            "--tuning-records",
            metavar="a,b",
            help="Logs of schedules, first hit first, or 'none'; default: yours, then the package's.",
        ),
    ] = None,
    locked: Annotated[
        Path | None, typer.Option("--locked", metavar="MANIFEST", help="Use the schedules of this earlier build.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="First tune what the logs lack, with N measurements at most.")
    ] = None,
    dump_ir: Annotated[Path | None, typer.Option("--dump-ir", help="Folder for the module after each pass.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Summary for machines.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Layers, seconds, tracebacks of defects.")] = False,
) -> None:
    """Compile a float ONNX model into an integer library.

    \b
    Examples:
      qcompile build model.onnx --calib-data samples.npz -o out/
      qcompile build model.onnx --target x86-avx2 --threads 2 --calib-data samples/ -o out/
      qcompile build model.onnx --fp32 --input-shapes "x:[8,3,224,224]" -o out/
      qcompile build model.onnx --precision w4a8 --group-size 64 --calib-data samples.npz -o out/
      qcompile build model.onnx --precision mixed --calib-data c.npz --eval-data e.npz --max-drop 0.5% -o out/
      qcompile build model.onnx --precision mixed --calib-data c.npz --latency-budget 5ms --report r.html -o out/
      qcompile build model.onnx --plan out/plan.json -o out2/
      qcompile build model.onnx --plan out/plan.json --locked out/ -o out2/
    """
    import qcompile as qc
    from qcompile.artifact import check_output
    from qcompile.targets.cuda.rows import CudaTarget
    from qcompile.targets.select import cpu_only, select_row

    precision = chosen_precision(precision, int8, fp32)
    check_group_size(group_size, precision, plan)
    wanted = {"--workers": workers, "--eval-data": eval_data, "--max-drop": max_drop, "--latency-budget": latency}
    wanted |= {"--size-budget": size, "--objective": objective, "--metric": metric, "--formats": formats}
    wanted |= {"--table": table, "--report": report}
    given = [option for option, value in wanted.items() if value is not None]
    if given and precision != MIXED:
        raise QCompileError("it is for mixed precision", node=given[0], remedy="give --precision mixed")
    mixed = None
    if precision == MIXED:
        if plan is not None:
            raise QCompileError("--plan and --precision mixed contradict each other", remedy="give one of them")
        if locked is not None:
            reason = "an earlier build's schedules are those of its plan"
            raise QCompileError(reason, node="--locked", remedy="give that build's plan.json by --plan")
        goal = objective.value if objective else None
        mixed = mixed_wish(max_drop, latency, size, goal, names(formats or []), eval_data, metric, table, workers or 1)
        if trials is not None and table is not None and table.is_file():
            reason = "the times in it are of the schedules that there were"
            raise QCompileError(reason, node=str(table), remedy="leave --trials out, or the table")
    if integer_io and plan is None:
        check_integer_io(precision)
    chosen = None if plan is None else given_plan(plan, precision, calib_data, exclude, integer_io)
    check_calibration(method, percentile, calib_data, eval_data)
    if dump_ir is not None:
        make_folder(dump_ir)
    if table is not None:
        check_place(table)
    if report is not None:
        from qcompile.report.page import check_report

        check_report(report, table)
    check_output(out)
    row = select_row(target).with_threads(threads)
    precision = row.format(precision)
    cpu = None if isinstance(row, CudaTarget) else row
    if mixed is not None:
        chosen_formats(row, mixed.formats)
    if isinstance(row, CudaTarget):
        check_gpu(row, precision if mixed is None else "fp32", plan, trials)
    records = check_schedules(tuning_records or [], locked, trials, row)
    times: dict[str, float] = {}
    with timed("import", times, "importing the model"):
        imported = qc.import_onnx(model, input_shapes(shapes or []), dump_ir=dump_ir)
    for note in imported.notes:
        remark(f"note: {note}")
    calibration = CalibrationWish(
        calib_data,
        method.value,
        percentile,
        num_samples,
        names(exclude or []),
        integer_io,
        precision,
        GROUP if group_size is None else group_size,
        equalize,
        rounding,
        bias_correction,
    )
    found: MixedPlan | None = None
    if mixed is not None:
        found = mixed_plan(imported, row, calibration, mixed, records, trials, times)
        chosen = found.plan
    elif chosen is None:
        chosen = uniform_plan(imported, cpu, calibration, times)
    if trials is not None and found is None:
        tune_plans(imported, [chosen], cpu_only(row), records, trials, times)
    with timed("compile", times, "compiling"):
        artifact = qc.build(
            imported,
            chosen,
            target=row,
            threads=threads,
            out=out,
            dump_ir=dump_ir,
            tuning_records=records or "none",
            locked=locked,
        )
    if found is not None and report is not None:
        from qcompile.report.mixed import verdict
        from qcompile.report.page import write_report

        write_report(report, found.table, found.assignment, facts=verdict(found))
        remark(f"report in {report}")
    _summarize(artifact, found, times, as_json, verbose)
    if found is not None and not found.met:
        remark(f"error: {'; '.join(found.unmet)}; {artifact.path} holds the best plan found")
        raise typer.Exit(1)


def _summarize(
    artifact: Artifact, found: MixedPlan | None, times: Mapping[str, float], as_json: bool, verbose: bool
) -> None:
    from qcompile.report import units
    from qcompile.report.mixed import mixed_values, trials_table, verdict
    from qcompile.report.tables import facts, layers_table, schedules

    if as_json:
        manifest = artifact.manifest
        show_json(
            {
                "artifact": str(artifact.path),
                "bytes": artifact.size,
                "target": manifest.target,
                "threads": manifest.threads,
                "layers": dict(Counter(layer.format for layer in manifest.layers)),
                "float": {layer.name: layer.reason for layer in manifest.layers if layer.reason},
                "schedules": schedules(manifest.schedules),
                "knobs": [
                    {"layer": info.layer, "schedule": info.source, "knobs": json.loads(info.knobs)}
                    for info in manifest.schedules
                ],
                "notes": manifest.notes,
                "seconds": {name: round(seconds, 3) for name, seconds in times.items()},
                **({"mixed": mixed_values(found)} if found is not None else {}),
            }
        )
        return
    if found is not None:
        show(trials_table(found))
    if verbose:
        show(layers_table(artifact.manifest.layers))
    for key, text in [*facts(artifact), *(verdict(found) if found is not None else [])]:
        show(f"{key:<10} {text}")
    show(f"{'artifact':<10} {artifact.path} ({units.size(artifact.size)})")
    if verbose:
        show(f"{'seconds':<10} {', '.join(f'{name} {seconds:.1f}' for name, seconds in times.items())}")
