"""``qcompile inspect``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcompile.cli.console import show, show_json, step
from qcompile.cli.options import input_shapes

if TYPE_CHECKING:
    from qcompile.manifest import LayerInfo


def inspect(
    path: Annotated[Path, typer.Argument(help="An artifact folder, or an ONNX model.")],
    layers: Annotated[bool, typer.Option("--layers", help="One row a layer.")] = False,
    shapes: Annotated[
        list[str] | None, typer.Option("--input-shapes", help='Of an ONNX model: "x:[1,3,224,224]".')
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for machines.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tracebacks of defects.")] = False,
) -> None:
    """Show what was built, or what an ONNX model holds.

    Layer by layer with --layers: kernel, where its schedule is from, shapes, work, scale, and why a layer stayed float.

    \b
    Examples:
      qcompile inspect out/
      qcompile inspect out/ --layers
      qcompile inspect model.onnx --layers --json
    """
    if path.is_dir() or not path.exists():
        _artifact(path, layers, as_json)
    else:
        _model(path, layers, input_shapes(shapes or []), as_json)


def _artifact(path: Path, layers: bool, as_json: bool) -> None:
    from qcompile.artifact import open_artifact
    from qcompile.report.tables import facts

    artifact = open_artifact(path, verify=False)
    if as_json:
        show_json(json.loads(artifact.manifest.to_json()))
        return
    _show(facts(artifact), artifact.manifest.layers if layers else None)


def _model(path: Path, layers: bool, shapes: dict[str, tuple[int, ...]], as_json: bool) -> None:
    import qcompile as qc
    from qcompile.report import units
    from qcompile.report.model import model_layers

    with step("importing"):
        model = qc.import_onnx(path, shapes)
        rows = model_layers(model)
    if as_json:
        show_json(
            {
                "model": path.name,
                "inputs": [dataclasses.asdict(t) for t in model.inputs],
                "outputs": [dataclasses.asdict(t) for t in model.outputs],
                "layers": [dataclasses.asdict(row) for row in rows],
                "notes": model.notes,
            }
        )
        return
    tensors = [(kind, t) for kind, ts in (("input", model.inputs), ("output", model.outputs)) for t in ts]
    lines = [
        ("model", f"{path.name} ({units.size(path.stat().st_size)})"),
        *((kind, f"{t.name} {t.dtype} {units.shape(t.shape)}") for kind, t in tensors),
        ("layers", f"{len(rows)}; {units.count(sum(row.macs for row in rows)) or 0} MACs"),
        *(("note", note) for note in model.notes),
    ]
    _show(lines, rows if layers else None)


def _show(lines: list[tuple[str, str]], layers: tuple[LayerInfo, ...] | list[LayerInfo] | None) -> None:
    from qcompile.report.tables import layers_table

    for key, text in lines:
        show(f"{key:<10} {text}")
    if layers is not None:
        show(layers_table(layers))
