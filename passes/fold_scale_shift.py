"""Scales and shifts by channel directly behind a layer, folded into its weight and bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from qcompile.passes import channels
from qcompile.passes.base import Draft, array, local_pass, op_name, refused, shape_of


@dataclass(frozen=True, slots=True)
class Biased:
    """A layer as far as it is written: ``call`` bound to ``var``, then ``bias`` (O,) in float64 if there is one."""

    var: relax.Var
    call: relax.Call
    bias: np.ndarray | None
    single_use: bool


@local_pass("FoldScaleShift")
def fold_scale_shift(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """``(conv(x, w) [+ b]) * s + t``  ->  ``conv(x, w * s) + (b * s + t)``

    for constants s, t with one number for each output channel, and for multiply, divide, add and subtract. What is left
    behind a layer is at most one ``add`` of a constant (1, O, 1, 1), (1, O, 1), or (N,) behind a matmul. The last of
    them has the name of what it replaces; in front of an ``add`` the convolution keeps its own, that of the ONNX node.
    """
    kind = op_name(value)
    if kind not in ("multiply", "divide", "add", "subtract") or array(value.args[1]) is None:
        return None
    layer = find_layer(draft, value.args[0])
    if layer is None:
        return None
    vector = by_output(array(value.args[1]), layer.call)
    if (reason := judge(kind, layer, vector)) is not None:
        return refused(name, reason)
    if kind in ("add", "subtract"):
        if layer.single_use:
            draft.names.pop(layer.var, None)
        shift = vector if kind == "add" else -vector
        bias = channels.bias(shift if layer.bias is None else layer.bias + shift, layer.call)
        if kind == "add" and layer.bias is None and shape_of(value.args[1]) == shape_of(bias):
            return None  # the canonical form itself
        return relax.op.add(layer.var, bias)
    scale = vector if kind == "multiply" else 1.0 / vector
    scaled = channels.scale_outputs(layer.call, scale)
    conv = draft.emit(scaled, layer.var.name)
    if layer.bias is None:
        draft.names[conv] = name
        return conv
    return relax.op.add(conv, channels.bias(layer.bias * scale, layer.call))


def find_layer(draft: Draft, expr: relax.Expr) -> Biased | None:
    """The layer that ``expr`` is the result of, with or without a bias."""
    value = draft.definition(expr)
    if channels.is_layer(value):
        return Biased(expr, value, None, draft.uses(expr) == 1)
    layer = draft.definition(value.args[0]) if op_name(value) == "add" else None
    if not channels.is_layer(layer) or array(value.args[1]) is None:
        return None
    bias = by_output(array(value.args[1]), layer)
    single_use = draft.uses(expr) == 1 and draft.uses(value.args[0]) == 1
    return None if bias is None else Biased(value.args[0], layer, bias, single_use)


def by_output(values: np.ndarray, layer: relax.Call) -> np.ndarray | None:
    """A constant as one number for each output channel of a layer, None if it is not that."""
    axis, rank = channels.channel_axis(layer), len(shape_of(layer))
    return channels.by_channel(values, rank, axis, channels.out_channels(layer))


def judge(kind: str, layer: Biased, vector: np.ndarray | None) -> str | None:
    if vector is None:
        return "the constant is not one number for each output channel"
    if layer.bias is None and kind in ("add", "subtract"):
        return None  # becomes the bias: the layer itself does not change
    if not layer.single_use:
        return "the layer's result has another use"
    if kind == "divide" and not vector.all():
        return "division by zero"
    return channels.why_not(layer.call)
