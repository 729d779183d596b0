"""Reductions over axes that an attribute (older opsets) or a constant input (newer ones) gives."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax

from qcompile.frontend.context import NodeContext, Result


def _axes(ctx: NodeContext) -> list[int] | None:
    """Axes to reduce, counted from the front; None for nothing to do."""
    axes, rank = ctx.optional_ints(1, "axes", "axes"), len(ctx.shape())
    if not axes:
        return None if ctx.get("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(a % rank for a in axes)


def reduction(
    op: Callable[..., relax.Expr],
    before: Callable[[relax.Expr], relax.Expr] | None = None,
    after: Callable[[relax.Expr], relax.Expr] | None = None,
) -> Callable[[NodeContext], Result]:
    """``after(op(before(x)))``."""

    def convert(ctx: NodeContext) -> Result:
        axes = _axes(ctx)
        x = ctx.tensor(0)
        if axes is None and before is None and after is None:
            return x
        x = ctx.emit.emit(before(x)) if before else x
        y = x if axes is None else op(x, axes, bool(ctx.get("keepdims", 1)))
        return after(y) if after else y

    return convert


def _square(x: relax.Expr) -> relax.Expr:
    return relax.op.multiply(x, x)


def log_sum_exp(ctx: NodeContext) -> Result:
    """``max + log(sum(exp(x - max)))``: no overflow."""
    axes = _axes(ctx) or []
    x = ctx.tensor(0)
    top = ctx.emit.emit(relax.op.max(x, axes, True))
    total = relax.op.sum(relax.op.exp(relax.op.subtract(x, top)), axes, True)
    y = relax.op.add(relax.op.log(total), top)
    return y if ctx.get("keepdims", 1) else relax.op.squeeze(y, axes)


def global_pool(op: Callable[..., relax.Expr]) -> Callable[[NodeContext], Result]:
    return lambda ctx: op(ctx.tensor(0), list(range(2, len(ctx.shape()))), True)


CONVERTERS = {
    "ReduceMean": reduction(relax.op.mean),
    "ReduceSum": reduction(relax.op.sum),
    "ReduceMax": reduction(relax.op.max),
    "ReduceMin": reduction(relax.op.min),
    "ReduceProd": reduction(relax.op.prod),
    "ReduceSumSquare": reduction(relax.op.sum, before=_square),
    "ReduceL1": reduction(relax.op.sum, before=relax.op.abs),
    "ReduceL2": reduction(relax.op.sum, before=_square, after=relax.op.sqrt),
    "ReduceLogSum": reduction(relax.op.sum, after=relax.op.log),
    "ReduceLogSumExp": log_sum_exp,
    "GlobalAveragePool": global_pool(relax.op.mean),
    "GlobalMaxPool": global_pool(relax.op.max),
}
