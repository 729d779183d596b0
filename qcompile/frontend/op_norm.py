"""Normalization: of a batch, an image, a layer, a vector."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.frontend.context import NodeContext, Result


def batch_norm(ctx: NodeContext) -> Result:
    """``x * f + g`` with constants of shape (1, C, 1, ...), computed in double precision."""
    if ctx.get("training_mode", 0) or any(ctx.wanted[1:]):
        raise ctx.fail("batch normalisation in training mode is not supported", "export the model for inference")
    if not ctx.get("spatial", 1):
        raise ctx.unsupported("batch normalisation with statistics for each pixel")
    gamma, beta, mean_, var = (ctx.constant(i, "parameter").astype(np.float64) for i in range(1, 5))
    factor = gamma / np.sqrt(var + ctx.get("epsilon", 1e-5))
    shape = (1, -1, *[1] * (len(ctx.shape()) - 2)) if len(ctx.shape()) > 1 else (-1,)
    f, g = (v.reshape(shape).astype(ctx.dtype()) for v in (factor, beta - mean_ * factor))
    return relax.op.add(relax.op.multiply(ctx.tensor(0), ctx.as_expr(f)), ctx.as_expr(g))


def instance_norm(ctx: NodeContext) -> Result:
    x, rank = ctx.tensor(0), len(ctx.shape())
    axes, shape = list(range(2, rank)), (1, -1, *[1] * (rank - 2))
    gamma, beta = (ctx.constant(i, "parameter").reshape(shape) for i in (1, 2))
    centred = ctx.emit.emit(relax.op.subtract(x, relax.op.mean(x, axes, keepdims=True)))
    var = relax.op.mean(relax.op.multiply(centred, centred), axes, keepdims=True)
    root = relax.op.sqrt(relax.op.add(var, ctx.scalar(ctx.get("epsilon", 1e-5))))
    return relax.op.add(relax.op.multiply(relax.op.divide(centred, root), ctx.as_expr(gamma)), ctx.as_expr(beta))


def layer_norm(ctx: NodeContext) -> Result:
    if any(ctx.wanted[1:]):
        raise ctx.unsupported("the output of mean or deviation")
    axis, shape = ctx.axis(-1), ctx.shape()[ctx.axis(-1) :]
    gamma = ctx.constant(1, "scale")
    beta = ctx.constant(2, "bias") if ctx.has(2) else np.zeros((), gamma.dtype)
    gamma, beta = (np.ascontiguousarray(np.broadcast_to(v, shape)) for v in (gamma, beta))
    axes = list(range(axis, len(ctx.shape())))
    return relax.op.nn.layer_norm(
        ctx.tensor(0), ctx.as_expr(gamma), ctx.as_expr(beta), axes, epsilon=ctx.get("epsilon", 1e-5)
    )


def lp_normalization(ctx: NodeContext) -> Result:
    """``x / norm``, and 0 where the norm is 0."""
    x, axis, p = ctx.tensor(0), ctx.axis(-1), ctx.get("p", 2)
    if p not in (1, 2):
        raise ctx.unsupported(f"a norm of order {p}")
    powers = relax.op.multiply(x, x) if p == 2 else relax.op.abs(x)
    norm = relax.op.sum(powers, axis, keepdims=True)
    norm = relax.op.sqrt(norm) if p == 2 else norm
    tiny = float(np.finfo(ctx.dtype()).tiny)
    return relax.op.divide(x, relax.op.maximum(norm, ctx.scalar(tiny)))


CONVERTERS = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "LpNormalization": lp_normalization,
}
