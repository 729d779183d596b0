"""Scales and shifts by channel directly in front of a layer, folded into its weight and bias."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.passes import channels
from qcompile.passes.base import Draft, array, local_pass, op_name, refused, shape_of, with_args


@local_pass("FoldInputScale")
def fold_input_scale(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """``conv(x * s + t, w)``  ->  ``conv(x, w * s) + sum(w * t)``

    for constants s, t with one number for each input channel that only this layer reads. A shift needs a convolution
    without padding: padding is zero behind the shift, and would have to be ``-t / s`` before it. The bias of a layer in
    front stays with that layer.
    """
    if not channels.is_layer(value):
        return None
    layer, bias = value, None
    source = draft.definition(layer.args[0])
    while (reason := judge(draft, source, layer)) is None:
        vector = by_input(array(source.args[1]), layer)
        if op_name(source) == "multiply":
            weighted = channels.scale_inputs(layer, vector)
        else:
            weighted = layer
            bias = channels.response(layer, vector) + (0.0 if bias is None else bias)
        layer = draft.normalize(with_args(weighted, source.args[0], weighted.args[1]))
        source = draft.definition(layer.args[0])
    if reason:
        refused(name, reason)
    if layer is value:
        return None
    if bias is None:
        return layer
    product = draft.emit(layer, draft.step(name, op_name(layer).rpartition(".")[2]))
    return relax.op.add(product, channels.bias(bias, layer))


def judge(draft: Draft, source: relax.Expr | None, layer: relax.Call) -> str | None:
    """Why ``source``, the input of ``layer``, cannot be folded into it: None if it can, "" if it is no such thing."""
    if op_name(source) not in ("multiply", "add") or array(source.args[1]) is None:
        return ""
    if draft.uses(layer.args[0]) != 1:
        return "the scaled input has another use"
    if by_input(array(source.args[1]), layer) is None:
        return "the constant is not one number for each input channel"
    if op_name(source) == "add" and channels.is_layer(draft.definition(source.args[0])):
        return ""
    if op_name(source) == "add" and op_name(layer) in channels.CONVOLUTIONS:
        if op_name(layer).endswith("transpose"):
            return "a shift in front of a transposed convolution is not the same at borders"
        if any(int(p) for p in layer.attrs.padding):
            return "a shift in front of a convolution with padding"
    return channels.why_not(layer)


def by_input(values: np.ndarray, layer: relax.Call) -> np.ndarray | None:
    """A constant as one number for each input channel of a layer, None if it is not that."""
    rank = len(shape_of(layer.args[0]))
    axis = rank - 1 if op_name(layer) == "matmul" else 1
    return channels.by_channel(values, rank, axis, channels.in_channels(layer))
