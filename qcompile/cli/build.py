"""``qcompile build``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcompile.cli.console import remark, show, show_json
from qcompile.cli.options import input_shapes, names
from qcompile.cli.planning import CalibrationWish, Method, integer_plan, timed
from qcompile.errors import QCompileError
from qcompile.formats import GROUP, format_of
from qcompile.plan import QuantPlan

if TYPE_CHECKING:
    from qcompile.artifact import Artifact
    from qcompile.model import Model
    from qcompile.targets.target import Target


class Precision(StrEnum):
    int8 = "int8"
    w4a8 = "w4a8"
    w8 = "w8"
    fp32 = "fp32"


def build(
    model: Annotated[Path, typer.Argument(help="The float (or QDQ) ONNX model.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", "--output", help="Artifact folder; an older artifact there is replaced.")
    ],
    target: Annotated[str, typer.Option("--target", help="See 'qcompile targets'.")] = "native",
    precision: Annotated[
        Precision, typer.Option("--precision", help="Of every layer that has such a form.")
    ] = Precision.int8,
    int8: Annotated[bool, typer.Option("--int8", help="Same as --precision int8.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Same as --precision fp32.")] = False,
    group_size: Annotated[
        int | None, typer.Option("--group-size", help="Of w4a8: int4 weights that share a scale (32).")
    ] = None,
    calib_data: Annotated[
        Path | None, typer.Option("--calib-data", help="Samples: .npz by input name, or a folder of .npy/.npz.")
    ] = None,
    method: Annotated[Method, typer.Option("--calib-method", help="How ranges are chosen.")] = Method.minmax,
    percentile: Annotated[
        float | None, typer.Option("--percentile", help="Percent kept by that method (99.99).")
    ] = None,
    equalize: Annotated[
        bool, typer.Option("--equalize/--no-equalize", help="Bring channels to similar magnitudes first.")
    ] = False,
    bias_correction: Annotated[
        bool, typer.Option("--bias-correction/--no-bias-correction", help="Keep the means of each layer's outputs.")
    ] = True,
    num_samples: Annotated[int | None, typer.Option("--num-samples", help="Use the first N samples only.")] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan.json instead of calibration.")] = None,
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
        int | None, typer.Option("--trials", min=1, help="First tune what the log lacks, with N measurements at most.")
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
      qcompile build model.onnx --plan out/plan.json -o out2/
      qcompile build model.onnx --plan out/plan.json --locked out/ -o out2/
    """
    import qcompile as qc
    from qcompile.artifact import check_output
    from qcompile.targets.select import select_target

    if int8 and (fp32 or precision is not Precision.int8):
        other = "fp32" if fp32 else precision.value
        raise QCompileError(f"--int8 and {other} contradict each other", remedy="give one precision")
    if fp32:
        precision = Precision.fp32
    if group_size is not None and (precision is not Precision.w4a8 or plan is not None):
        raise QCompileError("only weights that are planned as w4a8 have groups", remedy="give --precision w4a8")
    if group_size is not None and (group_size < 8 or group_size % 8):
        raise QCompileError(f"--group-size {group_size} is not a multiple of 8", remedy="32 and 64 are usual")
    check_output(out)
    row = select_target(target)
    records = _check_schedules(tuning_records or [], locked, trials, row.with_threads(threads))
    times: dict[str, float] = {}
    with timed("import", times, "importing the model"):
        imported = qc.import_onnx(model, input_shapes(shapes or []), dump_ir=dump_ir)
    for note in imported.notes:
        remark(f"note: {note}")
    if plan is not None:
        chosen = QuantPlan.load(plan)
    elif not format_of(precision.value).codes:
        chosen = qc.plan_uniform(imported, None, precision.value, row, names(exclude or []))
    else:
        wish = CalibrationWish(
            calib_data,
            method.value,
            percentile,
            num_samples,
            names(exclude or []),
            integer_io,
            precision.value,
            GROUP if group_size is None else group_size,
            equalize,
            bias_correction,
        )
        chosen = integer_plan(imported, row, wish, times)
    if trials is not None:
        _tune(imported, chosen, row.with_threads(threads), records, trials, times)
    with timed("compile", times, "compiling"):
        artifact = qc.build(
            imported,
            chosen,
            target=row,
            threads=threads,
            out=out,
            dump_ir=dump_ir,
            tuning_records=records,
            locked=locked,
        )
    _summarize(artifact, times, as_json, verbose)


def _check_schedules(records: list[str], locked: Path | None, trials: int | None, target: Target) -> list[str]:
    """What ``--tuning-records`` names; what cannot be used is told before an hour of work."""
    from qcompile.tune.locked import LockedSchedules, load_manifest
    from qcompile.tune.lookup import DEFAULT_RECORDS, log_files, open_logs
    from qcompile.tune.run import logs_to_tune

    if locked is not None:
        for option, given in (("--tuning-records", records), ("--trials", trials)):
            if given:
                raise QCompileError(f"--locked and {option} contradict each other", remedy="give one of them")
        LockedSchedules(load_manifest(locked), target)
    named = records or [DEFAULT_RECORDS]
    with open_logs(log_files(named) if trials is None else logs_to_tune(named)[1:]):  # the first may yet be made
        return named


def _tune(
    model: Model, plan: QuantPlan, target: Target, records: list[str], trials: int, times: dict[str, float]
) -> None:
    from qcompile.tune.run import tune
    from qcompile.tune.session import Budget
    from qcompile.tune.tasks import tasks_of

    with timed("tune", times, "tuning") as update:
        tune(
            tasks_of(model, plan, target),
            target,
            tuning_records=records,
            budget=Budget(trials),
            report=lambda states, _: update(f"{sum(state.trials for state in states)} trials"),
        )


def _summarize(artifact: Artifact, times: Mapping[str, float], as_json: bool, verbose: bool) -> None:
    from qcompile.report import units
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
            }
        )
        return
    if verbose:
        show(layers_table(artifact.manifest.layers))
    for key, text in facts(artifact):
        show(f"{key:<10} {text}")
    show(f"{'artifact':<10} {artifact.path} ({units.size(artifact.size)})")
    if verbose:
        show(f"{'seconds':<10} {', '.join(f'{name} {seconds:.1f}' for name, seconds in times.items())}")
