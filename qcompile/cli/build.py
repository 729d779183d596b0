"""``qcompile build``."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcompile.cli.console import remark, show, show_json, step
from qcompile.cli.options import input_shapes, names
from qcompile.plan import QuantPlan

if TYPE_CHECKING:
    from qcompile.artifact import Artifact
    from qcompile.calibrate import TensorStats
    from qcompile.model import Model, TensorSpec
    from qcompile.targets.target import Target


class Precision(StrEnum):
    int8 = "int8"
    fp32 = "fp32"


class Method(StrEnum):
    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


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
    calib_data: Annotated[
        Path | None, typer.Option("--calib-data", help="Samples: .npz by input name, or a folder of .npy/.npz.")
    ] = None,
    method: Annotated[Method, typer.Option("--calib-method", help="How ranges are chosen.")] = Method.minmax,
    percentile: Annotated[
        float | None, typer.Option("--percentile", help="Percent kept by that method (99.99).")
    ] = None,
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
      qcompile build model.onnx --plan out/plan.json -o out2/
    """
    import qcompile as qc
    from qcompile.artifact import check_output
    from qcompile.targets.select import select_target

    if int8 and (fp32 or precision is Precision.fp32):
        raise qc.QCompileError("--int8 and fp32 contradict each other", remedy="give one precision")
    if fp32:
        precision = Precision.fp32
    check_output(out)
    row = select_target(target)
    times: dict[str, float] = {}
    with _timed("import", times, "importing the model"):
        imported = qc.import_onnx(model, input_shapes(shapes or []), dump_ir=dump_ir)
    for note in imported.notes:
        remark(f"note: {note}")
    if plan is not None:
        chosen = QuantPlan.load(plan)
    elif precision is Precision.fp32:
        chosen = qc.plan_uniform(imported, None, "fp32", row)
    else:
        wish = _Wish(calib_data, method.value, percentile, num_samples, names(exclude or []), integer_io)
        chosen = _integer_plan(imported, row, wish, times)
    with _timed("compile", times, "compiling"):
        artifact = qc.build(imported, chosen, target=row, threads=threads, out=out, dump_ir=dump_ir)
    _summarize(artifact, times, as_json, verbose)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the command line says of calibration."""

    data: Path | None
    method: str
    percentile: float | None
    num_samples: int | None
    exclude: tuple[str, ...]
    integer_io: bool


def _integer_plan(model: Model, target: Target, wish: _Wish, times: dict[str, float]) -> QuantPlan:
    """By the scales that a pre-quantized model brings, unless there is data to find others."""
    import qcompile as qc
    from qcompile.assign.imported import brings_scales
    from qcompile.calibrate.methods import PERCENTILE

    inputs = _float_names(model.inputs) if wish.integer_io else []
    outputs = _float_names(model.outputs) if wish.integer_io else []
    if wish.data is None and brings_scales(model):
        with _timed("plan", times, "planning"):
            return qc.plan_imported(model, wish.exclude, inputs, outputs)
    stats = _calibrated(model, wish, times)
    percent = PERCENTILE if wish.percentile is None else wish.percentile
    with _timed("plan", times, "planning"):
        return qc.plan_uniform(
            model, stats, "int8", target, wish.exclude, inputs, outputs, method=wish.method, percent=percent
        )


def _calibrated(model: Model, wish: _Wish, times: dict[str, float]) -> TensorStats:
    import qcompile as qc
    from qcompile.calibrate import RANDOM_DATA_WARNING, calibration_data, random_data

    if wish.data is None:
        remark(RANDOM_DATA_WARNING)
        data = calibration_data(random_data(model.inputs), model.inputs, wish.num_samples)
    else:
        data = calibration_data(wish.data, model.inputs, wish.num_samples)
    with _timed("calibrate", times, "calibrating") as update:
        stats = qc.calibrate(model, data, wish.method, progress=lambda done: update(f"{done} samples"))
    for note in data.notes:
        remark(f"note: {note}")
    return stats


def _float_names(specs: Sequence[TensorSpec]) -> list[str]:
    return [spec.name for spec in specs if spec.dtype == "float32"]


@contextlib.contextmanager
def _timed(name: str, times: dict[str, float], text: str) -> Iterator[Callable[[str], None]]:
    start = time.perf_counter()
    with step(text) as update:
        yield update
    times[name] = time.perf_counter() - start


def _summarize(artifact: Artifact, times: Mapping[str, float], as_json: bool, verbose: bool) -> None:
    from qcompile.report import units
    from qcompile.report.tables import facts, layers_table

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
