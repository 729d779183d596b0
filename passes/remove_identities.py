"""Operators that return their input."""

from __future__ import annotations

from tvm import relax

from qcompile.passes.base import Draft, array, dtype_of, local_pass, op_name, shape_of

SAME_IF_SHAPE = ("reshape", "broadcast_to", "flatten", "squeeze", "expand_dims", "nn.batch_flatten", "split")
NEUTRAL = {"add": 0.0, "subtract": 0.0, "multiply": 1.0, "divide": 1.0}


@local_pass("RemoveIdentities")
def remove_identities(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """``y = identity(x)``  ->  uses of y read x.

    Identities: another name for a variable, an element of a tuple that was just made, reshape and broadcast to the
    shape that x has, permute_dims in order, a slice of everything, concat and split of one, pad by zero, astype to the
    same dtype, dropout (its first result), adding 0, multiplying by 1. If y is an output of the model, x takes its
    name; the identity stays if x is an input or an output itself.
    """
    if isinstance(value, relax.Var):
        return value
    if isinstance(value, relax.TupleGetItem):
        return _element(draft.definition(value.tuple_value), value.index)
    if not isinstance(value, relax.Call) or not value.args or not isinstance(value.ty, relax.TensorType):
        return None
    x = value.args[0]
    return _only(x) if is_identity(value) else None


def is_identity(value: relax.Call) -> bool:
    """Whether a call of an operator returns its first argument (the only element of it, if that is a tuple)."""
    kind, x = op_name(value), value.args[0]
    if kind == "concat":
        return isinstance(x, relax.Tuple) and len(x.fields) == 1
    if not isinstance(getattr(x, "ty", None), relax.TensorType) or shape_of(x) != shape_of(value):
        return False
    if kind in SAME_IF_SHAPE:
        return True
    if kind == "permute_dims":
        return permutation(value) == tuple(range(len(shape_of(value))))
    if kind == "strided_slice":
        # Of the same shape: everything, unless it runs backwards.
        return len(value.args) < 5 or all(int(s) > 0 for s in value.args[4].fields)
    if kind == "nn.pad":
        return not any(int(p) for p in value.attrs.pad_width)
    if kind == "astype":
        return dtype_of(x) == dtype_of(value)
    if kind in NEUTRAL:
        other = array(value.args[1])
        return other is not None and bool((other == NEUTRAL[kind]).all())
    return False


def permutation(value: relax.Call) -> tuple[int, ...]:
    """The axes of a permute_dims; reversed if it has none."""
    rank = len(shape_of(value.args[0]))
    if value.attrs.axes is None:
        return tuple(range(rank))[::-1]
    return tuple(int(axis) % rank for axis in value.attrs.axes)


def _element(made: relax.Expr | None, index: int) -> relax.Expr | None:
    if isinstance(made, relax.Tuple):
        return made.fields[index]
    if op_name(made) == "nn.dropout" and index == 0:
        return made.args[0]
    return None


def _only(x: relax.Expr) -> relax.Expr:
    return x.fields[0] if isinstance(x, relax.Tuple) else x
