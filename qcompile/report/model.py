"""What an imported model holds, before anything is quantized: the rows of ``qcompile inspect model.onnx``."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from qcompile.manifest import LayerInfo

if TYPE_CHECKING:
    from qcompile.model import Model


def model_layers(model: Model) -> list[LayerInfo]:
    """One row a binding of ``main``, all float."""
    from tvm import relax

    from qcompile.graph import read

    rows = []
    for var, value in read(model.module).bindings:
        layer = model.layers.get(var.name)
        args = list(value.args) if isinstance(value, relax.Call) else []
        shapes = [_shape(a.ty) for a in args if isinstance(a.ty, relax.TensorType)]
        op = getattr(getattr(value, "op", None), "name", "")
        name, kind = (layer.node, layer.op_type) if layer else (var.name, op)
        out = _shape(var.ty)
        rows.append(LayerInfo(name, kind, "fp32", "", tuple(shapes), out, _macs(op, shapes, out)))
    return rows


def _shape(ty: Any) -> tuple[int, ...]:
    shape = getattr(ty, "shape", None)
    return tuple(int(d) for d in shape) if shape is not None else ()


def _macs(op: str, inputs: list[tuple[int, ...]], out: tuple[int, ...]) -> int:
    """Multiply-accumulates of a convolution (weight (O, C/g, ...)), transposed one (C, O/g, ...) or matmul."""
    if "transpose" in op and "conv" in op:
        return prod(inputs[0]) * prod(inputs[1][1:])
    if "conv" in op:
        return prod(out) * prod(inputs[1][1:])
    return prod(out) * inputs[0][-1] if op.endswith("matmul") else 0
