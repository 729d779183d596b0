"""Operators that take or put elements where indices say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax

from qcompile.frontend.context import NodeContext, Result
from qcompile.frontend.op_shape import sliced


def gather(ctx: NodeContext) -> Result:
    """A slice where indices are constant and evenly spaced (one index: a slice, then a reshape), else ``take``."""
    axis, shape = ctx.axis(0), ctx.shape()
    indices = ctx.inputs[1]
    if isinstance(indices, np.ndarray):
        extent = shape[axis]
        if indices.size and (indices.min() < -extent or indices.max() >= extent):
            raise ctx.fail(f"an index is out of range for {extent} elements", "mend or re-export the model")
        flat = indices.astype(np.int64).reshape(-1) % extent
        result = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
        if not isinstance(ctx.inputs[0], np.ndarray) and flat.size:
            step = int(flat[1] - flat[0]) if flat.size > 1 else 1
            even = range(int(flat[0]), int(flat[-1]) + (1 if step > 0 else -1), step) if step else range(0)
            if list(even) == flat.tolist():
                y = sliced(ctx, {axis: even})
                return y if indices.ndim == 1 else relax.op.reshape(y, result)
        return relax.op.take(ctx.tensor(0), ctx.as_expr(flat.reshape(indices.shape)), axis, mode="clip")
    # "wrap" makes negative indices count from the end and keeps bad ones from reading foreign memory.
    return relax.op.take(ctx.tensor(0), ctx.tensor(1), axis, mode="wrap")


def gather_elements(ctx: NodeContext) -> Result:
    axis = ctx.axis(0)
    return relax.op.gather_elements(ctx.tensor(0), _wrapped(ctx, ctx.shape()[axis : axis + 1]), axis)


def gather_nd(ctx: NodeContext) -> Result:
    batch = ctx.get("batch_dims", 0)
    extents = ctx.shape()[batch : batch + ctx.shape(1)[-1]]
    return relax.op.gather_nd(ctx.tensor(0), _wrapped(ctx, extents), batch)


def scatter_elements(ctx: NodeContext) -> Result:
    axis = ctx.axis(0)
    indices = _wrapped(ctx, ctx.shape()[axis : axis + 1])
    return relax.op.scatter_elements(ctx.tensor(0), indices, ctx.tensor(2), axis, _reduction(ctx))


def scatter_nd(ctx: NodeContext) -> Result:
    indices = _wrapped(ctx, ctx.shape()[: ctx.shape(1)[-1]])
    return relax.op.scatter_nd(ctx.tensor(0), indices, ctx.tensor(2), _reduction(ctx))


def _reduction(ctx: NodeContext) -> str:
    how: str = ctx.get("reduction", "none")
    return "update" if how == "none" else how


def _wrapped(ctx: NodeContext, extents: Sequence[int]) -> relax.Expr:
    """Indices (..., extents or 1) that count from the start."""
    indices, sizes = ctx.inputs[1], np.asarray(extents, ctx.dtype(1))
    if isinstance(indices, np.ndarray):
        return ctx.as_expr(np.where(indices < 0, indices + sizes, indices))
    below = relax.op.less(indices, ctx.scalar(0, 1))
    return relax.op.where(below, relax.op.add(indices, ctx.as_expr(sizes)), indices)


def reverse_sequence(ctx: NodeContext) -> Result:
    """The first elements of each sample along the time axis, backwards; how many is constant for each."""
    shape, batch, time = ctx.shape(), ctx.get("batch_axis", 1), ctx.get("time_axis", 0)
    lengths = ctx.constant(1, "lengths")
    if (lengths == shape[time]).all():
        return relax.op.flip(ctx.tensor(0), time)
    steps = np.arange(shape[time])[:, None]
    at = np.where(steps < lengths, lengths - 1 - steps, steps).astype(np.int64)  # (time, batch)
    at = at if time < batch else at.T
    at = at.reshape([n if axis in (batch, time) else 1 for axis, n in enumerate(shape)])
    return relax.op.gather_elements(ctx.tensor(0), ctx.as_expr(np.ascontiguousarray(np.broadcast_to(at, shape))), time)


CONVERTERS = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "ReverseSequence": reverse_sequence,
}
