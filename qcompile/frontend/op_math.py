"""Elementwise operators, matrix products and softmax."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import inf, prod

import numpy as np
from tvm import relax

from qcompile.frontend.context import NodeContext, Result


def unary(op: Callable[[relax.Expr], relax.Expr]) -> Callable[[NodeContext], Result]:
    return lambda ctx: op(ctx.tensor(0))


def binary(op: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Callable[[NodeContext], Result]:
    return lambda ctx: op(ctx.tensor(0), ctx.tensor(1))


def variadic(op: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Callable[[NodeContext], Result]:
    """Sum, Max, Min of any number of tensors as a chain of two-operand steps."""
    return lambda ctx: reduce(op, [ctx.tensor(i) for i in range(len(ctx.inputs))])


def mean(ctx: NodeContext) -> Result:
    total = variadic(relax.op.add)(ctx)
    return relax.op.multiply(total, ctx.scalar(1 / len(ctx.inputs))) if len(ctx.inputs) > 1 else total


def power(ctx: NodeContext) -> Result:
    """Of the base's type, whatever the exponent's; TVM knows powers of floats of one type only."""
    base, exponent = ctx.value(0), ctx.value(1)
    dtype = ctx.dtype(0)
    inner = dtype if ctx.is_float() else "float64"
    if isinstance(exponent, np.ndarray):
        exponent = exponent.astype(inner)
    elif ctx.dtype(1) != inner:
        exponent = relax.op.astype(exponent, inner)
    base = ctx.as_expr(base) if inner == dtype else relax.op.astype(ctx.as_expr(base), inner)
    y = relax.op.power(base, ctx.as_expr(exponent))
    return y if inner == dtype else relax.op.astype(y, dtype)


def is_inf(ctx: NodeContext) -> Result:
    x = ctx.tensor(0)
    wanted = [bound for bound, sign in ((inf, "positive"), (-inf, "negative")) if ctx.get(f"detect_{sign}", 1)]
    ends = [relax.op.equal(x, ctx.scalar(bound)) for bound in wanted]
    return reduce(relax.op.logical_or, ends) if ends else np.zeros(ctx.shape(), bool)


def clip(ctx: NodeContext) -> Result:
    """One ``clip`` with constant bounds; bounds that are computed become minimum and maximum."""
    if ctx.opset < 11:
        low, high = ctx.get("min", -inf), ctx.get("max", inf)
    else:
        bounds = [ctx.inputs[i] if ctx.has(i) else None for i in (1, 2)]
        if any(b is not None and not isinstance(b, np.ndarray) for b in bounds):
            y = ctx.tensor(0)
            y = relax.op.maximum(y, ctx.tensor(1)) if ctx.has(1) else y
            return relax.op.minimum(y, ctx.tensor(2)) if ctx.has(2) else y
        low = -inf if bounds[0] is None or np.isnan(bounds[0]).all() else bounds[0].item()
        high = inf if bounds[1] is None or np.isnan(bounds[1]).all() else bounds[1].item()
    if (low, high) == (-inf, inf):
        return ctx.inputs[0]
    if not ctx.is_float():
        limits = np.iinfo(ctx.dtype())
        low, high = int(max(low, limits.min)), int(min(high, limits.max))
    return relax.op.clip(ctx.tensor(0), min(low, high), high)


def leaky_relu(ctx: NodeContext) -> Result:
    return relax.op.nn.leakyrelu(ctx.tensor(0), ctx.get("alpha", 0.01))


def prelu(ctx: NodeContext) -> Result:
    slope, rank = ctx.inputs[1], len(ctx.shape())
    if isinstance(slope, np.ndarray):
        if slope.size == 1:
            return relax.op.nn.leakyrelu(ctx.tensor(0), float(slope.item()))
        varied = [i - slope.ndim + rank for i, n in enumerate(slope.shape) if n != 1]
        if len(varied) == 1:
            return relax.op.nn.prelu(ctx.tensor(0), ctx.as_expr(slope.reshape(-1)), varied[0])
    x = ctx.tensor(0)
    return relax.op.where(relax.op.less(x, ctx.scalar(0)), relax.op.multiply(x, ctx.tensor(1)), x)


def hard_sigmoid(ctx: NodeContext) -> Result:
    scaled = relax.op.multiply(ctx.tensor(0), ctx.scalar(ctx.get("alpha", 0.2)))
    return relax.op.clip(relax.op.add(scaled, ctx.scalar(ctx.get("beta", 0.5))), 0.0, 1.0)


def hard_swish(ctx: NodeContext) -> Result:
    x = ctx.tensor(0)
    gate = relax.op.clip(relax.op.add(x, ctx.scalar(3.0)), 0.0, 6.0)
    return relax.op.multiply(x, relax.op.multiply(gate, ctx.scalar(1 / 6)))


def softplus(ctx: NodeContext) -> Result:
    """``max(x, 0) + log(1 + exp(-|x|))``: no overflow."""
    x = ctx.tensor(0)
    tail = relax.op.log(relax.op.add(relax.op.exp(relax.op.negative(relax.op.abs(x))), ctx.scalar(1.0)))
    return relax.op.add(relax.op.nn.relu(x), tail)


def mish(ctx: NodeContext) -> Result:
    return relax.op.multiply(ctx.tensor(0), relax.op.tanh(softplus(ctx)))


def swish(ctx: NodeContext) -> Result:
    x, alpha = ctx.tensor(0), ctx.get("alpha", 1.0)
    inner = x if alpha == 1.0 else relax.op.multiply(x, ctx.scalar(alpha))
    return relax.op.multiply(x, relax.op.sigmoid(inner))


def _half_of_exponentials(ctx: NodeContext, op: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Result:
    """cosh and sinh: LLVM has no code for them."""
    x = ctx.tensor(0)
    return relax.op.multiply(op(relax.op.exp(x), relax.op.exp(relax.op.negative(x))), ctx.scalar(0.5))


def softmax(ctx: NodeContext, op: Callable[..., relax.Expr] = relax.op.nn.softmax) -> Result:
    """Along one axis since opset 13; before, over all axes from ``axis`` on at once."""
    shape = ctx.shape()
    axis = ctx.axis(-1 if ctx.opset >= 13 else 1)
    if ctx.opset >= 13 or prod(shape[axis + 1 :]) == 1:
        return op(ctx.tensor(0), axis)
    flat = relax.op.reshape(ctx.tensor(0), (prod(shape[:axis]), prod(shape[axis:])))
    return relax.op.reshape(op(flat, -1), shape)


def log_softmax(ctx: NodeContext) -> Result:
    return softmax(ctx, relax.op.nn.log_softmax)


def gemm(ctx: NodeContext) -> Result:
    """``matmul(a, b (K, N)) + c``; alpha, beta and transposes go into constants where there are any."""
    alpha, beta = ctx.get("alpha", 1.0), ctx.get("beta", 1.0)
    a, b = ctx.inputs[0], ctx.inputs[1]
    a, b = (_transposed(ctx, v) if ctx.get(t, 0) else v for v, t in ((a, "transA"), (b, "transB")))
    b, scaled = _scaled(b, alpha)
    y = relax.op.matmul(ctx.as_expr(a), ctx.as_expr(b))
    y = y if scaled else relax.op.multiply(y, ctx.scalar(alpha))
    if not ctx.has(2) or beta == 0:
        return y
    c, scaled = _scaled(ctx.inputs[2], beta)
    if isinstance(c, np.ndarray) and c.ndim == 2 and c.shape[0] == 1:
        c = c.reshape(-1)
    c = ctx.as_expr(c)
    return relax.op.add(y, c if scaled else relax.op.multiply(c, ctx.scalar(beta)))


def _transposed(ctx: NodeContext, value: object) -> object:
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value.T)
    return ctx.emit.emit(relax.op.permute_dims(value, [1, 0]))


def _scaled(value: object, factor: float) -> tuple[object, bool]:
    """``value * factor`` and True, if that can be done now."""
    if factor == 1.0:
        return value, True
    if isinstance(value, np.ndarray):
        return (value * np.asarray(factor, value.dtype)).astype(value.dtype), True
    return value, False


def einsum(ctx: NodeContext) -> Result:
    equation, shapes = ctx.get("equation"), [ctx.shape(i) for i in range(len(ctx.inputs))]
    try:  # TVM crashes on an equation that does not fit
        np.einsum_path(equation, *(np.broadcast_to(np.float32(0), shape) for shape in shapes))
    except ValueError as error:
        raise ctx.fail(f"{equation!r} does not fit its inputs ({error})", "mend or re-export the model") from None
    return relax.op.einsum(tuple(ctx.tensor(i) for i in range(len(shapes))), equation)


CONVERTERS = {
    "Add": binary(relax.op.add),
    "Sub": binary(relax.op.subtract),
    "Mul": binary(relax.op.multiply),
    "MatMul": binary(relax.op.matmul),
    "Sum": variadic(relax.op.add),
    "Max": variadic(relax.op.maximum),
    "Min": variadic(relax.op.minimum),
    "Mean": mean,
    "Relu": unary(relax.op.nn.relu),
    "Sigmoid": unary(relax.op.sigmoid),
    "Tanh": unary(relax.op.tanh),
    "Cosh": lambda ctx: _half_of_exponentials(ctx, relax.op.add),
    "Sinh": lambda ctx: _half_of_exponentials(ctx, relax.op.subtract),
    "Exp": unary(relax.op.exp),
    "Log": unary(relax.op.log),
    "Sqrt": unary(relax.op.sqrt),
    "Erf": unary(relax.op.erf),
    "Abs": unary(relax.op.abs),
    "Neg": unary(relax.op.negative),
    "Floor": unary(relax.op.floor),
    "Ceil": unary(relax.op.ceil),
    "Round": unary(relax.op.round),
    "Pow": power,
    "IsInf": is_inf,
    "Clip": clip,
    "LeakyRelu": leaky_relu,
    "PRelu": prelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Softplus": softplus,
    "Mish": mish,
    "Swish": swish,
    "Softmax": softmax,
    "LogSoftmax": log_softmax,
    "Gemm": gemm,
    "Einsum": einsum,
}
