"""Runs of multiplications and additions by constants as one multiplication and one addition."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.passes.base import Draft, array, constant, dtype_of, local_pass, op_name, refused, shape_of
from qcompile.passes.channels import is_layer


@local_pass("MergeAffine")
def merge_affine(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """Scales go first, then there is one of each::

        (x * a) * b   ->  x * (a * b)
        (x + a) + b   ->  x + (a + b)
        (x + a) * b   ->  (x * b) + (a * b)

    for constants a, b and an inner result that nothing else reads: a batch norm with a scale and shift of its own
    behind it. The bias of a layer stays with the layer.
    """
    if op_name(value) not in ("add", "multiply"):
        return None
    inner = draft.definition(value.args[0])
    if op_name(inner) not in ("add", "multiply") or array(inner.args[1]) is None or array(value.args[1]) is None:
        return None
    if (reason := judge(draft, value, inner)) is not None:
        return refused(name, reason)
    x, a, b = inner.args[0], inner.args[1], value.args[1]
    match op_name(inner), op_name(value):
        case "multiply", "multiply":
            return relax.op.multiply(x, product(a, b))
        case "add", "add":
            return relax.op.add(x, constant(_wide(a) + _wide(b)))
        case "add", "multiply":
            return _scale_first(draft, x, a, b, name)
    return None


def judge(draft: Draft, value: relax.Call, inner: relax.Call) -> str | None:
    if dtype_of(value) != "float32":
        return "not float32"
    if draft.uses(value.args[0]) != 1:
        return "the inner result has another use"
    if is_layer(draft.definition(inner.args[0])) and op_name(inner) == "add":
        return "the inner addition is the bias of a layer"
    a, b = shape_of(inner.args[1]), shape_of(value.args[1])
    if np.prod(np.broadcast_shapes(a, b)) > max(np.prod(a), np.prod(b)):
        return "the constants together are larger than each"
    return None


def product(a: relax.Expr, b: relax.Expr) -> relax.Expr:
    return constant(_wide(a) * _wide(b))


def _scale_first(draft: Draft, x: relax.Expr, a: relax.Expr, b: relax.Expr, name: str) -> relax.Expr:
    """``(x + a) * b``, where x may be a product by a constant itself."""
    inner, scale = draft.definition(x), b
    if op_name(inner) == "multiply" and array(inner.args[1]) is not None and draft.uses(x) == 1:
        x, scale = inner.args[0], product(inner.args[1], b)
    return relax.op.add(draft.emit(relax.op.multiply(x, scale), draft.step(name, "multiply")), product(a, b))


def _wide(expr: relax.Expr) -> np.ndarray:
    return array(expr).astype(np.float64)
