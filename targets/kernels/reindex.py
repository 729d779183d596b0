"""permute_dims where rows or channels move as vectors: the elements in another order of axes."""

from __future__ import annotations

from math import prod

from tvm import tirx

from qcompile.targets.kernels.builder import Buffer, Index, kernel, load, loop, store
from qcompile.targets.kernels.sweep import Operand, borders, chunks, parallel, pixel_lanes, store_pixel
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def moves_vectors(axes: tuple[int, ...], x: Storage, out: Storage) -> bool:
    """Whether neighbours stay neighbours, so that ``permute_dims`` takes these storages; axes are not negative.

    Between a blocked and a plain tensor the channels are the last axis of the plain one; between two plain tensors the
    last axis stays.
    """
    if x.blocked:
        return not out.blocked and axes[-1] == 1
    return axes[1] == len(axes) - 1 if out.blocked else axes[-1] == len(axes) - 1


def permute_dims(axes: tuple[int, ...], x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``out[i_axes[0], i_axes[1], ...] = x[i_0, i_1, ...]``, numpy's transpose: buffers x, y; see ``moves_vectors``."""

    def body(source: Buffer, y: Buffer) -> None:
        operands = Operand(source, x), Operand(y, out)
        if x.blocked:
            _channels_last(*operands, _inverse(axes), operands[0], target)
        elif out.blocked:
            _channels_last(*operands, axes, operands[1], target)
            borders(operands[1])
        else:
            _rows(axes, *operands, target)

    return kernel("permute_dims", [("x", x.dtype, x.numel), ("y", out.dtype, out.numel)], body)


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
