"""Lowers operators that move elements: no arithmetic, codes or floats alike. What they decline stays an island."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tvm import relax

from qcompile.passes.base import dtype_of, op_name, shape_of
from qcompile.passes.movement_calls import pad_indices, part_start, resize_indices, slice_start
from qcompile.passes.operand_storage import beside, home, plain
from qcompile.reference.movement import is_nearest_resize
from qcompile.targets.kernels import movement, reindex

if TYPE_CHECKING:
    from qcompile.passes.lower_layers import Lowering


def _reshape(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    """No kernel: the same buffer under another shape. A sequence (N, C, W) and an image (N, C, 1, W) lie alike."""
    x = call.args[0]
    if not isinstance(x, relax.Var):
        return False
    source = home(lowering, x)
    if source.blocked and len(shape_of(var)) in (3, 4):
        same = replace(source, shape=shape_of(var))
        if same.image == source.image:
            lowering.alias(var, lowering.place(x, source), same)
            return True
    lowering.alias(var, lowering.place(x, plain(x)), plain(var))
    return True


def _permute_dims(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    """A view where only axes of extent 1 move, a kernel where rows or channels move as vectors."""
    x = call.args[0]
    if not isinstance(x, relax.Var):
        return False
    rank = len(shape_of(x))
    axes = tuple(int(a) % rank for a in call.attrs.axes or reversed(range(rank)))
    moved = [axis for axis in axes if shape_of(x)[axis] != 1]
    if moved == sorted(moved):
        return _reshape(lowering, var, call)
    source, out = home(lowering, x), lowering.home[var]
    if dtype_of(x) not in ("uint8", "int8", "float32") or not reindex.moves_vectors(axes, source, out):
        return False
    kernel = reindex.permute_dims(axes, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(x, source)], out, "permute_dims")
    return True


def _concat(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    if not isinstance(call.args[0], relax.Tuple) or call.attrs.axis is None:
        return False
    out, parts = lowering.home[var], list(call.args[0].fields)
    storages = [beside(part, lowering, out) for part in parts]
    kernel = movement.join(int(call.attrs.axis), *storages, out=out, target=lowering.target)
    lowering.emit(var, kernel, [lowering.place(p, s) for p, s in zip(parts, storages, strict=True)], out, "concat")
    return True


def _strided_slice(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    x, start = call.args[0], slice_start(call)
    if not isinstance(x, relax.Var) or start is None:
        return False
    _slice(lowering, var, x, *start)
    return True


def lower_split_part(lowering: Lowering, var: relax.Var, split: relax.Call, part: int) -> bool:
    """One result of a split is a slice."""
    x = split.args[0]
    if not isinstance(x, relax.Var):
        return False
    begin = part_start(split, part)
    _slice(lowering, var, x, begin, [1] * len(begin))
    return True


def _slice(lowering: Lowering, var: relax.Var, x: relax.Var, begin: Sequence[int], strides: Sequence[int]) -> None:
    source, out = home(lowering, x), lowering.home[var]
    kernel = movement.strided_slice(begin, strides, source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(x, source)], out, "strided_slice")


def _pad(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    x, attrs = call.args[0], call.attrs
    widths = [int(w) for w in attrs.pad_width]
    if not isinstance(x, relax.Var) or any(w < 0 for w in widths):
        return False
    source, out, before = home(lowering, x), lowering.home[var], widths[::2]
    if str(attrs.pad_mode) == "constant":
        kernel = movement.pad_constant(before, float(attrs.pad_value), source, out, lowering.target)
    elif (indices := pad_indices(call)) is not None:
        kernel = movement.take(indices, source, out, lowering.target)
    else:
        return False
    lowering.emit(var, kernel, [lowering.place(x, source)], out, "pad")
    return True


def _resize(lowering: Lowering, var: relax.Var, call: relax.Call) -> bool:
    x = call.args[0]
    if not isinstance(x, relax.Var) or not is_nearest_resize(call):
        return False
    source, out = home(lowering, x), lowering.home[var]
    kernel = movement.take(resize_indices(call, var), source, out, lowering.target)
    lowering.emit(var, kernel, [lowering.place(x, source)], out, op_name(call).rpartition(".")[2])
    return True


MOVEMENT: dict[str, Callable[[Lowering, relax.Var, relax.Call], bool]] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "flatten": _reshape,
    "permute_dims": _permute_dims,
    "concat": _concat,
    "strided_slice": _strided_slice,
    "nn.pad": _pad,
    "image.resize2d": _resize,
}
