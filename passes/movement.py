"""Operators that only move or repeat elements (or take the largest): they act on codes as they act on real numbers."""

from __future__ import annotations

from collections.abc import Mapping

from tvm import relax
from tvm.ir import GenericConst

from qcompile.passes.base import op_name
from qcompile.reference.movement import is_nearest_resize

MOVERS = (
    "reshape",
    "permute_dims",
    "squeeze",
    "expand_dims",
    "flatten",
    "nn.batch_flatten",
    "strided_slice",
    "flip",
    "tile",
    "broadcast_to",
    "max",
    "nn.max_pool1d",
    "nn.max_pool2d",
)


def moves(value: relax.Expr | None) -> bool:
    """Whether a call only moves elements of a variable, its first argument; a split, which makes a tuple, does not."""
    kind = op_name(value)
    if kind and value.args and isinstance(value.args[0], GenericConst):
        return False  # folded, unless it grows: then there are no codes to move
    if kind == "nn.pad":
        # Zero has a code in every quantization; other constants may lie outside.
        return str(value.attrs.pad_mode) != "constant" or float(value.attrs.pad_value) == 0
    if kind == "image.resize2d":
        return is_nearest_resize(value)
    if kind == "take":
        return isinstance(value.args[1], GenericConst)
    return kind in MOVERS


def split_of(value: relax.Expr | None, definitions: Mapping[relax.Var, relax.Expr]) -> relax.Call | None:
    """The split that a tuple field comes from, None for anything else."""
    if not isinstance(value, relax.TupleGetItem) or not isinstance(value.tuple_value, relax.Var):
        return None
    call = definitions.get(value.tuple_value)
    return call if op_name(call) == "split" else None


def moved_from(value: relax.Expr | None, definitions: Mapping[relax.Var, relax.Expr]) -> relax.Expr | None:
    """The tensor whose elements ``value`` moves, None if it does anything else."""
    if moves(value):
        return value.args[0]
    split = split_of(value, definitions)
    return split.args[0] if split is not None else None
