"""Operators that only move elements along each axis on its own: concat, slice, split, pad, nearest resize, shuffles.

The output is put together from pieces; in a piece, each axis has a list of the input indices to read. In blocked
storage the channel axis becomes shuffles of registers, constant ones for each output block, whatever the channel
numbers are; the other axes only choose pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from qcompile.targets.kernels.builder import Index, load, loop, store
from qcompile.targets.kernels.channels import ChannelRun, channel_runs, gather_channels
from qcompile.targets.kernels.sweep import Operand, borders, chunks, clear_padding, parallel
from qcompile.targets.target import Target

Convert = Callable[[Expr, int], Expr]  # (vector, lanes) -> vector


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """``out[start + i] = convert(source[maps[0][i0], maps[1][i1], ...])`` for all i below the maps' lengths.

    maps: for each axis, the input index of every element of the piece. start: where the piece lies in the output.
    convert: on values; None leaves them as they are.
    """

    source: Operand
    maps: tuple[np.ndarray, ...]
    start: tuple[int, ...]
    convert: Convert | None = None

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple(len(m) for m in self.maps)

    def value(self, vector: Expr, lanes: int) -> Expr:
        return self.convert(vector, lanes) if self.convert else vector


def whole(source: Operand, maps: Sequence[np.ndarray | None], convert: Convert | None = None) -> Piece:
    """A piece that is all of the output; None is an axis that stays as it is."""
    full = tuple(np.arange(n) if m is None else np.asarray(m) for n, m in zip(source.storage.shape, maps, strict=True))
    return Piece(source, full, (0,) * len(full), convert)


def remap(pieces: Sequence[Piece], out: Operand, target: Target) -> None:
    """Writes an output that the pieces cover, each element once, and its border."""
    fork = parallel(target, out.storage)
    if out.storage.blocked and all(p.source.storage.block == out.storage.block for p in pieces):
        for group in _side_by_side(pieces, out.storage.shape[1]):
            _pixels(group, out, fork)
    elif not out.storage.blocked and not any(p.source.storage.blocked for p in pieces):
        for piece in pieces:
            _stretches(piece, out, fork)
    else:
        clear_padding(out)
        for piece in pieces:
            _elements(piece, out, fork)
    borders(out)


def index_map(indices: np.ndarray) -> Callable[[Index], Index]:
    """``i -> indices[i]`` as an expression: arithmetic where the list is regular, else a table on the stack."""
    n = len(indices)
    first = int(indices[0])
    step = int(indices[1]) - first if n > 1 else 0
    if np.array_equal(indices, first + step * np.arange(n)):
        return lambda i: first + i * step if step else first + i * 0
    for factor in range(2, n + 1):
        if np.array_equal(indices, first + np.arange(n) // factor):
            return lambda i: first + i // factor
    table = T.alloc_buffer((n,), "int32")
    for i, value in enumerate(indices):
        store(table, i, tirx.IntImm("int32", int(value)), 1)
    return lambda i: table[i]


def _consecutive(indices: np.ndarray) -> bool:
    return bool((np.diff(indices) == 1).all())


def _side_by_side(pieces: Sequence[Piece], channels: int) -> list[list[Piece]]:
    """Pieces grouped so that each group fills all channels of the same pixels."""
    groups: dict[tuple, list[Piece]] = {}
    for p in pieces:
        place = tuple((p.start[a], p.extents[a]) for a in range(len(p.start)) if a != 1)
        groups.setdefault(place, []).append(p)
    for group in groups.values():
        if sum(p.extents[1] for p in group) != channels:
            raise ValueError("pieces of blocked storage must fill all channels of their pixels")
    return list(groups.values())


def _pixels(pieces: list[Piece], out: Operand, fork: bool) -> None:
    """Pieces that together are all channels of some pixels of a blocked output."""
    s = out.storage
    n_axis, h_axis, w_axis = (0, 2, 3) if len(s.shape) == 4 else (0, None, 2)
    first = pieces[0]

    def along(p: Piece, axis: int | None) -> np.ndarray:
        return np.zeros(1, np.int64) if axis is None else p.maps[axis]

    def placed(axis: int | None, i: Index) -> Index:
        return 0 if axis is None else first.start[axis] + i

    maps = [tuple(index_map(along(p, axis)) for axis in (n_axis, h_axis, w_axis)) for p in pieces]
    numbers: list[tuple[int, int]] = [(-1, 0)] * s.shape[1]
    for k, p in enumerate(pieces):
        for i, channel in enumerate(p.maps[1]):
            numbers[p.start[1] + i] = (k, int(channel))
    runs = channel_runs(numbers, s.block)
    images, height, width = (len(along(first, axis)) for axis in (n_axis, h_axis, w_axis))

    def pixel(k: int, block: Index, n: Index, h: Index, w: Index) -> Index:
        to_n, to_h, to_w = maps[k]
        return pieces[k].source.storage.pixel(to_n(n), block, to_h(h), to_w(w))

    def row(run: ChannelRun, i: Index, n: Index, h: Index) -> None:
        blocks = run.blocks(i)
        start = s.pixel(placed(n_axis, n), run.first + i * run.step, placed(h_axis, h), first.start[w_axis])
        if run.copies and _consecutive(along(pieces[run.sources[0]], w_axis)):
            k = run.sources[0]
            source = pieces[k].source
            base = pixel(k, blocks[0], n, h, 0)
            for offset, lanes, count in chunks(width * s.block, 64 if source.item_bytes == 1 else 16):
                with loop(count) as c:
                    at = offset + c * lanes
                    store(out.buffer, start + at, pieces[k].value(load(source.buffer, base + at, lanes), lanes), lanes)
            return
        with loop(width) as w:
            vectors = [
                pieces[k].value(load(pieces[k].source.buffer, pixel(k, block, n, h, w), s.block), s.block)
                for k, block in zip(run.sources, blocks, strict=True)
            ]
            value = gather_channels(vectors, run.lanes, s.block)
            store(out.buffer, start + w * s.block, value, s.block)

    with loop(images * height, fork) as i:
        for run in runs:
            with loop(run.count) as block:
                row(run, block, i // height, i % height)


def _stretches(piece: Piece, out: Operand, fork: bool) -> None:
    """Plain storage: the longest stretches that are contiguous on both sides."""
    source, shape = piece.source.storage.shape, out.storage.shape
    axis = len(shape) - 1
    while axis > 0 and piece.extents[axis] == source[axis] == shape[axis] and _consecutive(piece.maps[axis]):
        axis -= 1
    inner = prod(shape[axis + 1 :])
    extents = piece.extents
    straight = _consecutive(piece.maps[axis])
    length = inner * (extents[axis] if straight else 1)
    outer = extents[: axis if straight else axis + 1]
    maps = [index_map(m) for m in piece.maps]
    with loop(prod(outer), fork) as flat:
        index: list[Index] = []
        for extent in reversed(outer):
            index.insert(0, flat % extent)
            flat = flat // extent
        rest = [0] * (len(shape) - len(outer))
        where = [*index, *rest]
        read = piece.source.storage.at(*(to(i) for to, i in zip(maps, where, strict=True)))
        written = out.storage.at(*(a + i for a, i in zip(piece.start, where, strict=True)))
        for start, lanes, count in chunks(length, 64 if piece.source.item_bytes == 1 else 16):
            with loop(count) as i:
                at = start + i * lanes
                value = piece.value(load(piece.source.buffer, read + at, lanes), lanes)
                store(out.buffer, written + at, value, lanes)


def _elements(piece: Piece, out: Operand, fork: bool) -> None:
    """Any storage, element by element."""
    maps = [index_map(m) for m in piece.maps]

    def nest(axis: int, index: tuple[Index, ...], left: bool) -> None:
        if axis == len(maps):
            read = piece.source.storage.at(*(to(i) for to, i in zip(maps, index, strict=True)))
            written = out.storage.at(*(a + i for a, i in zip(piece.start, index, strict=True)))
            store(out.buffer, written, piece.value(load(piece.source.buffer, read, 1), 1), 1)
            return
        extent = piece.extents[axis]
        with loop(extent, left and extent > 1) as i:
            nest(axis + 1, (*index, i), left and extent == 1)

    nest(0, (), fork)
