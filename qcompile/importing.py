"""The first step: a file, or a Relax module, becomes a tidied ``Model``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcompile.frontend.onnx_import import import_onnx as read_onnx
from qcompile.frontend.relax_import import import_relax as read_relax
from qcompile.model import Model
from qcompile.passes.pipeline import run_passes, tidy_passes

if TYPE_CHECKING:
    from tvm.ir import IRModule


def import_onnx(
    path: str | Path | Any, input_shapes: Mapping[str, tuple[int, ...]] | None = None, dump_ir: str | Path | None = None
) -> Model:
    """Reads an ONNX model: a path (external data beside it is found) or a ``ModelProto``.

    input_shapes: shapes for inputs with symbolic dimensions; a symbolic first dimension defaults to 1, with a note.
    dump_ir: folder that gets the module after each pass.

    Raises ``QCompileError`` naming the node, the reason and the remedy for whatever cannot be read.
    """
    model = read_onnx(path, input_shapes)
    if isinstance(path, (str, Path)):
        with open(path, "rb") as file:
            model = replace(model, source_sha256=hashlib.file_digest(file, "sha256").hexdigest())
    return _tidied(model, dump_ir)


def import_relax(module: IRModule, dump_ir: str | Path | None = None) -> Model:
    """Takes any Relax module with a static ``main``; its variables' names serve as tensor names."""
    return _tidied(read_relax(module), dump_ir)


def _tidied(model: Model, dump_ir: str | Path | None) -> Model:
    return replace(model, module=run_passes(model.module, tidy_passes(), Path(dump_ir) if dump_ir else None))
