"""Batch normalization with constant statistics as what it computes at inference: one multiplication, one addition."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.passes.base import Draft, array, constant, dtype_of, local_pass, op_name, refused, shape_of


@local_pass("DecomposeBatchNorm")
def decompose_batch_norm(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """``y = batch_norm(x, gamma, beta, mean, var)[0]``  ->  ``y = x * s + (beta - mean * s)``

    with s = gamma / sqrt(var + epsilon). The constants are (1, C, 1, 1) for an (N, C, H, W) input.
    """
    norm = draft.definition(value.tuple_value) if isinstance(value, relax.TupleGetItem) and value.index == 0 else None
    if op_name(norm) != "nn.batch_norm":
        return None
    if (reason := judge(norm)) is not None:
        return refused(name, reason)
    gamma, beta, mean, variance = (array(arg).astype(np.float64) for arg in norm.args[1:])
    scale = (gamma if norm.attrs.scale else 1.0) / np.sqrt(variance + float(norm.attrs.epsilon))
    shift = (beta if norm.attrs.center else 0.0) - mean * scale
    x = norm.args[0]
    shape = [-1 if i == int(norm.attrs.axis) % len(shape_of(x)) else 1 for i in range(len(shape_of(x)))]
    scaled = draft.emit(relax.op.multiply(x, constant(scale.reshape(shape))), draft.step(name, "multiply"))
    return relax.op.add(scaled, constant(shift.reshape(shape)))


def judge(norm: relax.Call) -> str | None:
    if dtype_of(norm.args[0]) != "float32":
        return "batch norm that is not float32"
    if norm.attrs.training:
        return "batch norm in training mode"
    if any(array(arg) is None for arg in norm.args[1:]):
        return "batch norm with statistics that are not constant"
    return None
