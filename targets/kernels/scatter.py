"""Tensors with some elements or slices replaced, or combined with others, at places that indices tell.

Updates run in order, one thread: where indices repeat, the last one stays, and sums have one order. A negative index
counts from the end; one out of range becomes the nearest that is not, so that nothing foreign is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.targets.kernels.builder import Buffer, Index, bind, loop, store

COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {  # of the old value and the update
    "update": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": lambda old, new: tirx.Max(old, new),
    "min": lambda old, new: tirx.Min(old, new),
}
Buffers = tuple[Buffer, Buffer, Buffer]


def scatter_elements(
    shape: Sequence[int], where: Sequence[int], axis: int, dtype: str, index_dtype: str, reduction: str
) -> tirx.PrimFunc:
    """``y = x; y[i, ..., indices[i, ..., k], ...] = updates[i, ..., k, ...]`` along ``axis``.

    x, y (*shape) and updates (*where) of ``dtype``, indices (*where) of ``index_dtype``. reduction: a key of COMBINE.
    """

    def update(indices: Buffer, updates: Buffer, y: Buffer) -> None:
        with loop(prod(where)) as number:
            place, rest = _element(indices[number], shape[axis], index_dtype) * prod(shape[axis + 1 :]), number
            for dimension in reversed(range(len(where))):
                if dimension != axis:
                    place = place + rest % where[dimension] * prod(shape[dimension + 1 :])
                rest = rest // where[dimension]
            place = bind(place)
            store(y, place, COMBINE[reduction](y[place], updates[number]), 1)

    return _scatter("scatter_elements", (shape, where, where), dtype, index_dtype, update)


def scatter_nd(
    shape: Sequence[int], where: Sequence[int], dtype: str, index_dtype: str, reduction: str
) -> tirx.PrimFunc:
    """``y = x; y[tuple(indices[i, :])] = updates[i]``, elements or slices.

    x, y (*shape); indices (*where), whose last axis has an index for each of the first axes of x; updates
    (*where[:-1], *shape[where[-1] :]).
    """
    depth, inner = where[-1], prod(shape[where[-1] :])

    def update(indices: Buffer, updates: Buffer, y: Buffer) -> None:
        with loop(prod(where[:-1])) as number:
            place: Expr = tirx.const(0, index_dtype)
            for axis in range(depth):
                index = _element(indices[number * depth + axis], shape[axis], index_dtype)
                place = place + index * prod(shape[axis + 1 :])
            place = bind(place)
            with loop(inner) as i:
                store(y, place + i, COMBINE[reduction](y[place + i], updates[number * inner + i]), 1)

    shapes = (shape, where, (*where[:-1], *shape[depth:]))
    return _scatter("scatter_nd", shapes, dtype, index_dtype, update)


def _element(index: Expr, extent: int, dtype: str) -> Expr:
    zero, last = tirx.const(0, dtype), tirx.const(extent - 1, dtype)
    return tirx.Max(zero, tirx.Min(last, tirx.Select(index < zero, index + tirx.const(extent, dtype), index)))


def _scatter(
    name: str,
    shapes: tuple[Sequence[int], Sequence[int], Sequence[int]],
    dtype: str,
    index_dtype: str,
    update: Callable[[Buffer, Buffer, Buffer], None],
) -> tirx.PrimFunc:
    """The function of x, indices, updates and y; ``update`` changes y, a copy of x."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
        kinds = {"x": (shapes[0], dtype), "indices": (shapes[1], index_dtype)}
        kinds |= {"updates": (shapes[2], dtype), "y": (shapes[0], dtype)}
        args = {key: T.arg(key, T.buffer(shape, kind)) for key, (shape, kind) in kinds.items()}
        flat = {key: T.decl_buffer((prod(shape),), kind, data=args[key].data) for key, (shape, kind) in kinds.items()}
        with loop(prod(shapes[0])) as i:
            _copy(flat["x"], flat["y"], i)
        update(flat["indices"], flat["updates"], flat["y"])
    return builder.get().without_attr("global_symbol")


def _copy(source: Buffer, to: Buffer, i: Index) -> None:
    store(to, i, source[i], 1)
