"""Quantized operators that no rewrite took away, in plain arithmetic that gives the values of ONNX Runtime."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.frontend import op_conv
from qcompile.frontend.context import NodeContext, Result


def _aligned(ctx: NodeContext, index: int, rank: int) -> relax.Expr | None:
    """A scale or zero point, shaped to broadcast along ``axis``."""
    if not ctx.has(index):
        return None
    shape = ctx.shape(index)
    if len(shape) != 1 or rank < 2:
        return ctx.tensor(index)
    form = [1] * rank
    form[ctx.axis(1, rank)] = shape[0]
    return relax.op.reshape(ctx.tensor(index), form)


def _codes(ctx: NodeContext, real: relax.Expr, zero: relax.Expr | None, dtype: str) -> relax.Expr:
    """``saturate(round_half_even(real) + zero)``, clipped before the cast."""
    info = np.iinfo(dtype)
    q = relax.op.round(real)
    if zero is not None:
        q = relax.op.add(q, relax.op.astype(zero, "float32"))
    return relax.op.astype(relax.op.clip(q, float(info.min), float(info.max)), dtype)


def quantize_linear(ctx: NodeContext) -> Result:
    rank = len(ctx.shape())
    if ctx.get("block_size", 0):
        raise ctx.unsupported("blocked quantization of a computed tensor")
    dtype = ctx.dtype(2) if ctx.has(2) else "uint8"
    return _codes(ctx, relax.op.divide(ctx.tensor(0), _aligned(ctx, 1, rank)), _aligned(ctx, 2, rank), dtype)


def dequantize_linear(ctx: NodeContext) -> Result:
    rank = len(ctx.shape())
    if ctx.get("block_size", 0):
        raise ctx.unsupported("blocked quantization of a computed tensor")
    x, zero = relax.op.astype(ctx.tensor(0), "int32"), _aligned(ctx, 2, rank)
    if zero is not None:
        x = relax.op.subtract(x, relax.op.astype(zero, "int32"))
    return relax.op.multiply(relax.op.astype(x, ctx.dtype(1)), _aligned(ctx, 1, rank))


def dynamic_quantize_linear(ctx: NodeContext) -> Result:
    x, zero, keep = ctx.tensor(0), ctx.scalar(0.0), ctx.emit.emit
    low = keep(relax.op.minimum(relax.op.min(x), zero))
    spread = keep(relax.op.subtract(relax.op.maximum(relax.op.max(x), zero), low))
    nothing = relax.op.equal(spread, zero)
    scale = keep(relax.op.where(nothing, ctx.scalar(1.0), relax.op.divide(spread, ctx.scalar(255.0))))
    point = keep(_codes(ctx, relax.op.divide(relax.op.negative(low), scale), None, "uint8"))
    return [_codes(ctx, relax.op.divide(x, scale), point, "uint8"), scale, point]


def _centred(ctx: NodeContext, index: int, zero_index: int, form: tuple[int, ...] | None = None) -> relax.Expr:
    """``int32(codes) - int32(zero point)``."""
    x = relax.op.astype(ctx.tensor(index), "int32")
    if not ctx.has(zero_index):
        return x
    zero = relax.op.astype(ctx.tensor(zero_index), "int32")
    return relax.op.subtract(x, relax.op.reshape(zero, form) if form else zero)


def mat_mul_integer(ctx: NodeContext) -> Result:
    rows = (*ctx.shape(2), 1) if ctx.has(2) and len(ctx.shape(2)) == 1 and ctx.shape(2)[0] > 1 else None
    return relax.op.matmul(_centred(ctx, 0, 2, rows), _centred(ctx, 1, 3), out_dtype="int32")


def conv_integer(ctx: NodeContext) -> Result:
    rank = len(ctx.shape(1))
    channels = (-1, *[1] * (rank - 1)) if ctx.has(3) and len(ctx.shape(3)) == 1 and ctx.shape(3)[0] > 1 else None
    if channels:
        channels = (ctx.shape(3)[0], *channels[1:])
    x = ctx.emit.emit(_centred(ctx, 0, 2))
    weight = ctx.emit.emit(_centred(ctx, 1, 3, channels))
    return op_conv.conv(ctx.with_inputs(x, weight), out_dtype="int32")


CONVERTERS = {
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "MatMulInteger": mat_mul_integer,
    "ConvInteger": conv_integer,
}
