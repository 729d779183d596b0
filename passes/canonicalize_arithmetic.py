"""Arithmetic with constants, and bounds, in one spelling."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax

from qcompile.passes.base import Draft, array, constant, dtype_of, local_pass, number, op_name, shape_of

COMMUTATIVE = ("add", "multiply", "minimum", "maximum")


@local_pass("CanonicalizeArithmetic")
def canonicalize_arithmetic(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """One spelling for each meaning; float32 only::

    c + x, c * x                     ->  x + c, x * c
    x - c                            ->  x + (-c)
    x / c                            ->  x * (1 / c)             if all of c are powers of two: exact
    minimum(x, c), maximum(x, c)     ->  clip(x, -inf, c), clip(x, c, inf)      c one number
    nn.relu6(x)                      ->  clip(x, 0, 6)
    clip(clip(x, a, b), c, d)        ->  clip(x, max(a, c), min(b, d))          a relu inside is clip(x, 0, inf)
    clip(x, 0, inf)                  ->  nn.relu(x)
    """
    if not isinstance(value, relax.Call) or not isinstance(value.ty, relax.TensorType) or dtype_of(value) != "float32":
        return None
    kind = op_name(value)
    if kind in COMMUTATIVE and array(value.args[0]) is not None and array(value.args[1]) is None:
        swapped = relax.Call(value.op, [value.args[1], value.args[0]], value.attrs)
        spelled = _spell(draft, draft.normalize(swapped))
        return swapped if spelled is None else spelled
    return _spell(draft, value)


def _spell(draft: Draft, value: relax.Call) -> relax.Expr | None:
    kind = op_name(value)
    if kind in ("subtract", "divide"):
        return _by_constant(value)
    bounds = bounds_of(value)
    if bounds is None:
        return None
    x, low, high = bounds
    if (inner := bounds_of(draft.definition(x))) is not None:
        _, inner_low, inner_high = inner
        # A clip to [a, b] then to [c, d]: the later one wins where they do not overlap.
        low, high = min(max(inner_low, low), high), max(min(inner_high, high), low)
        x = inner[0]
    if (low, high) == (-math.inf, math.inf):
        return x
    if (low, high) == (0.0, math.inf):
        return None if kind == "nn.relu" and x.same_as(value.args[0]) else relax.op.nn.relu(x)
    if kind == "clip" and x.same_as(value.args[0]):
        return None
    return relax.op.clip(x, low, high)


def bounds_of(value: relax.Expr | None) -> tuple[relax.Expr, float, float] | None:
    """(x, low, high) if ``value`` only bounds x, by numbers."""
    kind = op_name(value)
    if kind == "nn.relu":
        return value.args[0], 0.0, math.inf
    if kind == "nn.relu6":
        return value.args[0], 0.0, 6.0
    if kind == "clip":
        return value.args[0], number(value.args[1]), number(value.args[2])
    if kind not in ("minimum", "maximum"):
        return None
    bound = array(value.args[1])
    if bound is None or bound.size == 0 or bound.min() != bound.max() or shape_of(value) != shape_of(value.args[0]):
        return None
    low, high = (-math.inf, float(bound.flat[0])) if kind == "minimum" else (float(bound.flat[0]), math.inf)
    return value.args[0], low, high


def _by_constant(value: relax.Call) -> relax.Expr | None:
    x, c = value.args[0], array(value.args[1])
    if c is None or array(x) is not None:
        return None
    if op_name(value) == "subtract":
        return relax.op.add(x, constant(-c))
    exact = (np.abs(np.frexp(c)[0]) == 0.5) & (np.abs(c) > 2.0**-126) & (np.abs(c) < 2.0**126)
    return relax.op.multiply(x, constant(1.0 / c)) if exact.all() else None
