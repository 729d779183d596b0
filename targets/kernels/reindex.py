"""Reshape and permute_dims: the elements in another order of axes, or under another shape."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tvm import tirx
from tvm.ir import Expr

from qcompile.targets.kernels.builder import Buffer, Index, kernel, load, loop, store
from qcompile.targets.kernels.sweep import (
    Operand,
    borders,
    chunks,
    each_element,
    elementwise,
    parallel,
    pixel_lanes,
    store_pixel,
)
from qcompile.targets.kernels.transpose import convert
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def reshape(x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """The same elements, in row-major order, under another shape: buffers x, y."""

    def body(source: Buffer, y: Buffer) -> None:
        _reshape(Operand(source, x), Operand(y, out), target)

    return kernel("reshape", [("x", x.dtype, x.numel), ("y", out.dtype, out.numel)], body)


def permute_dims(axes: tuple[int, ...], x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``out[i_axes[0], i_axes[1], ...] = x[i_0, i_1, ...]``, numpy's transpose: buffers x, y."""
    axes = tuple(axis % len(x.shape) for axis in axes)

    def body(source: Buffer, y: Buffer) -> None:
        _permute(axes, Operand(source, x), Operand(y, out), target)

    return kernel("permute_dims", [("x", x.dtype, x.numel), ("y", out.dtype, out.numel)], body)


def _same(vector: Expr, lanes: int) -> Expr:
    return vector


def _reshape(x: Operand, out: Operand, target: Target) -> None:
    if not x.storage.blocked:
        x = replace(x, storage=replace(x.storage, shape=out.storage.shape))
    elif not out.storage.blocked:
        out = replace(out, storage=replace(out.storage, shape=x.storage.shape))
    elif x.storage.image == out.storage.image and x.storage.block == out.storage.block:
        # A sequence and an image of one row: the same memory.
        x, out = (replace(o, storage=replace(o.storage, shape=o.storage.image)) for o in (x, out))
    else:
        _flat(x, out, target)
        return
    if x.storage.blocked != out.storage.blocked:
        convert(x, out, target, _same)
    else:
        elementwise([x], out, target, _same)


def _flat(x: Operand, out: Operand, target: Target) -> None:
    """Between two blocked images: through the row-major number of an element."""

    def value(index: tuple[Index, ...]) -> Expr:
        flat: Index = 0
        for extent, i in zip(out.storage.shape, index, strict=True):
            flat = flat * extent + i
        read: list[Index] = []
        for extent in reversed(x.storage.shape):
            read.insert(0, flat % extent)
            flat = flat // extent
        return x.buffer[x.storage.at(*read)]

    each_element(out, value, parallel(target, out.storage))
    borders(out)


def _permute(axes: tuple[int, ...], x: Operand, out: Operand, target: Target) -> None:
    if x.storage.blocked and not out.storage.blocked and axes[-1] == 1:
        _channels_last(x, out, _inverse(axes), x, target)
    elif out.storage.blocked and not x.storage.blocked and axes[1] == len(axes) - 1:
        _channels_last(x, out, axes, out, target)
    elif not x.storage.blocked and not out.storage.blocked and axes[-1] == len(axes) - 1:
        _rows(axes, x, out, target)
    else:
        inverse = _inverse(axes)

        def value(index: tuple[Index, ...]) -> Expr:
            return x.buffer[x.storage.at(*(index[i] for i in inverse))]

        each_element(out, value, parallel(target, out.storage))
    borders(out)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes.index(i) for i in range(len(axes)))


def _channels_last(x: Operand, out: Operand, place: tuple[int, ...], blocked: Operand, target: Target) -> None:
    """Channels are neighbours on both sides: a pixel's block moves as one vector.

    place: for each axis of the blocked tensor, its axis in the plain one.
    """
    s = blocked.storage
    n_extent, _, height, width = s.image
    for first, lanes, count in pixel_lanes(s):
        with loop(n_extent * height, parallel(target, s)) as i, loop(width) as w, loop(count) as b:
            n, h, block = i // height, i % height, first + b
            index: list[Index] = [0] * len(s.shape)
            logical = (n, block * s.block, h, w) if len(s.shape) == 4 else (n, block * s.block, w)
            for axis, value in zip(place, logical, strict=True):
                index[axis] = value
            if blocked is x:
                store(out.buffer, out.storage.at(*index), load(x.buffer, s.pixel(n, block, h, w), lanes), lanes)
            else:
                store_pixel(out, s.pixel(n, block, h, w), load(x.buffer, x.storage.at(*index), lanes), lanes)


def _rows(axes: tuple[int, ...], x: Operand, out: Operand, target: Target) -> None:
    """Plain tensors whose last axis stays: rows are copied."""
    *outer, length = out.storage.shape
    inverse = _inverse(axes)
    with loop(prod(outer), parallel(target, out.storage)) as row:
        index: list[Index] = []
        rest = row
        for extent in reversed(outer):
            index.insert(0, rest % extent)
            rest = rest // extent
        index.append(0)
        read = x.storage.at(*(index[i] for i in inverse))
        for start, lanes, count in chunks(length, 64 // x.item_bytes):
            with loop(count) as i:
                at = start + i * lanes
                store(out.buffer, row * length + at, load(x.buffer, read + at, lanes), lanes)
