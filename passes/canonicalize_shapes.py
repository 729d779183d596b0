"""Operators that only rename axes as ``reshape``, and runs of them as one."""

from __future__ import annotations

from tvm import relax

from qcompile.passes.base import Draft, local_pass, op_name, shape_of
from qcompile.passes.remove_identities import permutation

RESHAPES = ("reshape", "flatten", "nn.batch_flatten", "squeeze", "expand_dims")


@local_pass("CanonicalizeShapes")
def canonicalize_shapes(draft: Draft, value: relax.Expr, name: str) -> relax.Expr | None:
    """Shapes are static, so every change of shape is one ``reshape`` to a literal shape::

    flatten(x), squeeze(x), expand_dims(x)     ->  reshape(x, shape)
    reshape(reshape(x, a), b)                  ->  reshape(x, b)
    permute_dims(permute_dims(x, p), q)        ->  permute_dims(x, p then q)
    permute_dims(x, p)                         ->  reshape(x, shape)     if p only moves axes of extent 1
    """
    kind = op_name(value)
    if kind == "permute_dims":
        return _permute(draft, value)
    if kind not in RESHAPES:
        return None
    inner = draft.definition(value.args[0])
    x = inner.args[0] if op_name(inner) == "reshape" else value.args[0]
    if kind == "reshape" and x.same_as(value.args[0]):
        return None
    return relax.op.reshape(x, shape_of(value))


def _permute(draft: Draft, value: relax.Call) -> relax.Expr | None:
    inner = draft.definition(value.args[0])
    x, axes = value.args[0], permutation(value)
    if op_name(inner) == "permute_dims":
        x = inner.args[0]
        axes = compose(permutation(inner), axes)
    if only_moves_ones(shape_of(x), axes):
        return relax.op.reshape(x, shape_of(value))
    return None if x.same_as(value.args[0]) else relax.op.permute_dims(x, axes)


def compose(first: tuple[int, ...], then: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of ``permute_dims(permute_dims(x, first), then)`` as one."""
    return tuple(first[axis] for axis in then)


def only_moves_ones(shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether the axes that have more than one element stay in order."""
    moved = [axis for axis in axes if shape[axis] != 1]
    return moved == sorted(moved)
