"""``qcompile debug``."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qcompile.cli.console import remark, show, show_json
from qcompile.cli.planning import timed
from qcompile.errors import QCompileError

SHOWN = 20  # layers in the printed table


def debug(
    path: Annotated[Path, typer.Argument(help="The artifact folder.")],
    model: Annotated[Path, typer.Argument(help="The ONNX model that it was built from.")],
    inputs: Annotated[Path, typer.Option("-i", "--inputs", help="Samples: .npz by input name, or a folder.")],
    num_samples: Annotated[int | None, typer.Option("--num-samples", min=1, help="Use the first N samples.")] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="debug.html", help="A page for any browser; or a .json file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All layers, for machines.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="All layers, tracebacks of defects.")] = False,
) -> None:
    """Compare a built model with the float one, layer by layer, worst first.

    "alone" is what a layer adds to exact inputs; "up to here" what has come together by then. "clipped" is the share
    of results that the codes do not reach: choose another --calib-method if it is large.

    \b
    Examples:
      qcompile debug out/ model.onnx --inputs x.npz
      qcompile debug out/ model.onnx --inputs samples/ --num-samples 16 -v --report debug.html
    """
    import qcompile as qc
    from qcompile.analyze.debug import debug as run
    from qcompile.artifact import open_artifact
    from qcompile.calibrate import calibration_data
    from qcompile.report.debugging import debug_table, write_debug_report
    from qcompile.report.page import check_report
    from qcompile.targets.select import select_target

    if report is not None:
        check_report(report)
    artifact = open_artifact(path)
    manifest, plan = artifact.manifest, artifact.plan
    if manifest.model_sha256 and manifest.model_sha256 != _digest(model):
        raise QCompileError(
            f"{path} was built from another model", node=str(model), remedy=f"give {manifest.model} as it was then"
        )
    times: dict[str, float] = {}
    with timed("import", times, "importing the model"):
        imported = qc.import_onnx(model, {info.name: info.shape for info in manifest.inputs})
    data = calibration_data(inputs, imported.inputs, num_samples)
    with timed("debug", times, "comparing") as update:
        rows = run(imported, plan, data, select_target("native"), lambda done: update(f"{done} samples"))
    if report is not None:
        write_debug_report(report, rows, imported.layers, manifest.model, manifest.target, inputs.name)
        remark(f"report in {report}")
    if as_json:
        show_json([asdict(row) for row in rows])
        return
    show(debug_table(rows if verbose else rows[:SHOWN]))
    if not verbose and len(rows) > SHOWN:
        show(f"... {len(rows) - SHOWN} layers with less error; -v shows all")


def _digest(model: Path) -> str:
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
