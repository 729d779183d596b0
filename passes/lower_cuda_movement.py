"""Lowers operators that move elements to CUDA kernels: codes or floats alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from tvm import relax, te, topi
from tvm.ir import GenericConst

from qcompile.passes.base import dtype_of, op_name, shape_of
from qcompile.passes.cuda_waiting import moves_later
from qcompile.passes.movement_calls import Indices, pad_indices, part_start, resize_indices, slice_start
from qcompile.reference.movement import is_nearest_resize
from qcompile.targets.cuda import movement
from qcompile.targets.cuda.storage import channels_last, rows_last

if TYPE_CHECKING:
    from qcompile.passes.lower_cuda import CudaLowering


def _reshape(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    """The same memory where both lie in the same order, else moved there."""
    x, shape = call.args[0], shape_of(var)
    out = lowering.home(var)
    if isinstance(x, GenericConst) or (x not in lowering.waiting and lowering.home(x).same_memory(out)):
        lowering.alias(var, lowering.place(x, out), out)
    else:
        moves_later(lowering, var, x, lambda t: topi.reshape(t, shape), "reshape")


def _permute_dims(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    rank = len(shape_of(var))
    order = [int(a) % rank for a in call.attrs.axes or reversed(range(rank))]
    moves_later(lowering, var, call.args[0], lambda x: topi.transpose(x, order), "permute_dims")


def _concat(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    concat(lowering, var, [Part(field) for field in call.args[0].fields], int(call.attrs.axis or 0))


@dataclass(frozen=True, slots=True)
class Part:
    """Of a concatenation. convert: of an element's expression; key: equal for parts that are converted alike."""

    tensor: relax.Expr
    convert: Callable[[str], str] = field(default=str, compare=False)
    key: object = None


def concat(lowering: CudaLowering, var: relax.Var, parts: Sequence[Part], axis: int) -> None:
    """Each part, converted, is written to its place; parts that begin an earlier concatenation, as they are there."""
    out, start = lowering.home(var), 0
    axis %= len(out.shape)
    result = lowering.buffer(var, out)
    parts = tuple(parts)
    begun = max((n for n in range(2, len(parts)) if (axis, parts[:n]) in lowering.concats), default=0)
    written = [Part(lowering.concats[axis, parts[:begun]]), *parts[begun:]] if begun else parts
    lowering.concats[axis, parts] = var
    for part, convert in ((p.tensor, p.convert) for p in written):
        x = (rows_last if out.axis > 1 else channels_last)(shape_of(part), dtype_of(part))
        kernel = movement.insert(axis, start, x, out, convert)
        lowering.write(kernel, [lowering.place(part, x)], result, var.name, "concat")
        start += x.shape[axis]


def _strided_slice(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    start = slice_start(call)
    if start is None:
        raise lowering.refuse("a slice whose bounds are computed")
    _slice(lowering, var, call.args[0], *start)


def _split_part(lowering: CudaLowering, var: relax.Var, value: relax.TupleGetItem) -> None:
    if value.tuple_value in lowering.parts:
        lowering.alias(var, *lowering.parts[value.tuple_value][value.index])
        return
    split = lowering.definitions.get(value.tuple_value)
    if op_name(split) != "split":
        raise lowering.refuse(f"a result of {op_name(split)}")
    begin = part_start(split, value.index)
    _slice(lowering, var, split.args[0], begin, [1] * len(begin))


def _slice(lowering: CudaLowering, var: relax.Var, x: relax.Expr, begin: Sequence[int], strides: Sequence[int]) -> None:
    def part(t: te.Tensor) -> te.Tensor:
        return te.compute(shape_of(var), lambda *i: t(*(b + a * s for a, b, s in zip(i, begin, strides, strict=True))))

    moves_later(lowering, var, x, part, "strided_slice")


def _pad(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    widths = [int(w) for w in call.attrs.pad_width]
    indices = pad_indices(call)
    if min(widths) < 0 or (indices is None and str(call.attrs.pad_mode) != "constant"):
        raise lowering.refuse(f"pad of mode {call.attrs.pad_mode}")
    if indices is not None:
        _choose(lowering, var, call.args[0], indices, "pad")
        return
    source, out = lowering.home(call.args[0]), lowering.home(var)
    value = float(call.attrs.pad_value)
    kernel = movement.pad_constant(widths[::2], f"{value.hex()}" if out.is_float else f"{int(value)}", source, out)
    lowering.emit(var, kernel, [lowering.place(call.args[0], source)], out, "pad")


def _resize(lowering: CudaLowering, var: relax.Var, call: relax.Call) -> None:
    if not is_nearest_resize(call):
        raise lowering.refuse("a resize of floats that is not to the nearest")
    _choose(lowering, var, call.args[0], resize_indices(call, var), "resize2d")


def _choose(lowering: CudaLowering, var: relax.Var, x: relax.Expr, indices: Indices, op: str) -> None:
    source, out = lowering.home(x), lowering.home(var)
    kernel, table = movement.choose(indices, source, out)
    lowering.emit(var, kernel, [lowering.place(x, source), np.array(table, np.int32)], out, op)


def moves_by_kernel(call: relax.Call) -> bool:
    """False for calls of ``MOVEMENT`` that its rows decline."""
    name = op_name(call)
    if name == "strided_slice":
        return slice_start(call) is not None
    if name == "image.resize2d":
        return is_nearest_resize(call)
    if name == "concat":
        return isinstance(call.args[0], relax.Tuple) and call.attrs.axis is not None
    if name == "nn.pad":
        known = str(call.attrs.pad_mode) == "constant" or pad_indices(call) is not None
        return known and min(int(w) for w in call.attrs.pad_width) >= 0
    return True


MOVEMENT: dict[str, Callable[..., None]] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "flatten": _reshape,
    "permute_dims": _permute_dims,
    "concat": _concat,
    "strided_slice": _strided_slice,
    "split": _split_part,
    "nn.pad": _pad,
    "image.resize2d": _resize,
}
