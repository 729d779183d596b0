"""Concat, slice, split, pad, channel shuffle, nearest resize: ``remap`` with other lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from qcompile.ops import Affine, ChannelShuffle, Concat
from qcompile.targets.kernels.builder import Buffer, kernel, loop, splat, store
from qcompile.targets.kernels.elementwise import requantized
from qcompile.targets.kernels.remap import Convert, Piece, remap, whole
from qcompile.targets.kernels.sweep import Operand, chunks
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def concat(spec: Concat, *inputs: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.Concat``, which requantizes inputs of other codes: buffers x0, x1, ..., y."""

    def converter(x: Affine) -> Convert | None:
        return None if x == spec.out else lambda vector, lanes: requantized(vector, x, spec.out, lanes)

    return _concat(spec.axis, [converter(x) for x in spec.inputs], inputs, out, target)


def join(axis: int, *inputs: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """Inputs of any dtype one after the other along ``axis``, as they are (relax.concat): buffers x0, x1, ..., y."""
    return _concat(axis, [None] * len(inputs), inputs, out, target)


def _concat(
    axis: int, converters: Sequence[Convert | None], inputs: Sequence[Storage], out: Storage, target: Target
) -> tirx.PrimFunc:
    rank = len(out.shape)
    axis %= rank

    def pieces(operands: list[Operand]) -> list[Piece]:
        result, begin = [], 0
        for operand, convert in zip(operands, converters, strict=True):
            start = tuple(begin if a == axis else 0 for a in range(rank))
            result.append(replace(whole(operand, [None] * rank, convert), start=start))
            begin += operand.storage.shape[axis]
        return result

    return _kernel("concat", inputs, out, target, pieces)


def strided_slice(
    begin: Sequence[int], strides: Sequence[int], x: Storage, out: Storage, target: Target
) -> tirx.PrimFunc:
    """``out[i, j, ...] = x[begin[0] + i * strides[0], ...]``, numbers for every axis: buffers x, y. Split is slices."""
    maps = [b + s * np.arange(n) for b, s, n in zip(begin, strides, out.shape, strict=True)]
    return _kernel("strided_slice", (x,), out, target, lambda operands: [whole(operands[0], maps)])


def channel_shuffle(spec: ChannelShuffle, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.ChannelShuffle``: buffers x, y."""
    c = np.arange(x.shape[1])
    channels = c % spec.groups * (x.shape[1] // spec.groups) + c // spec.groups
    maps = [channels if axis == 1 else None for axis in range(len(x.shape))]
    return _kernel("channel_shuffle", (x,), out, target, lambda operands: [whole(operands[0], maps)])


def take(
    indices: Sequence[Sequence[int] | np.ndarray | None], x: Storage, out: Storage, target: Target
) -> tirx.PrimFunc:
    """``out[i, j, ...] = x[indices[0][i], indices[1][j], ...]``, None for an axis that stays: buffers x, y.

    Nearest resize, reflect and edge padding, and flips are such choices.
    """
    maps = [None if i is None else np.asarray(i) for i in indices]
    return _kernel("take", (x,), out, target, lambda operands: [whole(operands[0], maps)])


def pad_constant(before: Sequence[int], value: float, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``value`` around x, ``before`` elements of it on each axis: buffers x, y.

    value: an element of x's dtype (a code for codes).
    """

    def constant(lanes: int) -> Expr:
        return splat(value if out.dtype == "float32" else int(value), out.dtype, lanes)

    def body(source: Buffer, y: Buffer) -> None:
        operand = Operand(y, out)
        for offset, lanes, count in chunks(out.numel, 64 // operand.item_bytes):
            with loop(count) as i:
                store(y, offset + i * lanes, constant(lanes), lanes)
        inner = replace(whole(Operand(source, x), [None] * len(x.shape)), start=tuple(before))
        pieces = [inner]
        if out.blocked:
            # There, a pixel is written with all its channels: the added ones read any channel and drop what it holds.
            first, last = before[1], before[1] + x.shape[1]
            for begin, end in ((0, first), (last, out.shape[1])):
                if begin < end:
                    maps = (inner.maps[0], np.zeros(end - begin, np.int64), *inner.maps[2:])
                    start = (before[0], begin, *before[2:])
                    added = replace(inner, maps=maps, start=start, convert=lambda _, lanes: constant(lanes))
                    pieces.append(added)
        remap(pieces, operand, target)

    return kernel("pad", [("x", x.dtype, x.numel), ("y", out.dtype, out.numel)], body)


def _kernel(
    name: str,
    inputs: Sequence[Storage],
    out: Storage,
    target: Target,
    pieces: Callable[[list[Operand]], list[Piece]],
) -> tirx.PrimFunc:
    def body(*buffers: Buffer) -> None:
        *sources, y = buffers
        remap(pieces([Operand(*o) for o in zip(sources, inputs, strict=True)]), Operand(y, out), target)

    named = [(f"x{i}", s.dtype, s.numel) for i, s in enumerate(inputs)]
    return kernel(name, [*named, ("y", out.dtype, out.numel)], body)
