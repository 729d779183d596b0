"""Loops over whole tensors, for kernels in which every element of the output depends on few elements of the inputs.

Where operands lie in memory alike, ``elementwise`` runs over the longest contiguous stretches in wide vectors; where
only their channel blocks are alike, it takes one pixel's block at a time; anything else goes element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from qcompile.targets.kernels.builder import Buffer, Index, fill_border, load, loop, splat, store, tiles
from qcompile.targets.kernels.parallel import worth_threads
from qcompile.targets.storage import SLACK, Storage
from qcompile.targets.target import Target

_BYTES_A_CYCLE = 16  # that pass through such a kernel, from the second-level cache and back
_CODES = 64  # codes a vector: one 512-bit register of codes, four of int32

Compute = Callable[..., Expr]  # (vectors of the operands..., lanes) -> vector of the result


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor in memory."""

    buffer: Buffer
    storage: Storage

    @property
    def item_bytes(self) -> int:
        return self.storage.item_bytes


def parallel(target: Target, *storages: Storage) -> bool:
    """Whether so much memory moves that a second thread pays."""
    return worth_threads(target.threads, sum(s.nbytes for s in storages) / _BYTES_A_CYCLE)


@contextmanager
def rows(storage: Storage, in_parallel: bool = False) -> Iterator[tuple[Index, Index, Index]]:
    """All rows of a blocked tensor: (n, block, h), one loop over the three."""
    n, _, height, _ = storage.image
    with loop(n * storage.blocks * height, in_parallel) as i:
        plane = i // height
        yield plane // storage.blocks, plane % storage.blocks, i % height


def borders(out: Operand) -> None:
    """Writes the border of every plane of a blocked output."""
    if out.storage.blocked and any(out.storage.border):
        with loop(out.storage.image[0] * out.storage.blocks) as i:
            fill_border(out.buffer, out.storage, i // out.storage.blocks, i % out.storage.blocks)


def chunks(length: int, size: int) -> list[tuple[int, int, int]]:
    """A contiguous stretch cut into vectors: (start, lanes, how many). The last one may overlap the one before."""
    if length <= size:
        return [(0, length, 1)]
    whole, rest = divmod(length, size)
    return [(0, size, whole)] + [(length - size, size, 1)] * bool(rest)


def elementwise(
    operands: Sequence[Operand], out: Operand, target: Target, compute: Compute, lanes: int | None = None
) -> None:
    """``out[i] = compute(operands at i..., lanes)`` with numpy broadcasting, borders of ``out`` included.

    lanes: widest vector on contiguous memory; by default one register of codes, four of float32 if any tensor is float.
    """
    storages = [o.storage for o in (*operands, out)]
    wide = lanes or (_CODES if all(o.item_bytes == 1 for o in (*operands, out)) else min(_CODES, 4 * target.lanes))
    fork = parallel(target, *storages)
    if all(_alike(s, out.storage) for s in storages):
        _stretches(operands, out, compute, wide, fork)
    elif out.storage.blocked and all(_by_pixels(s, out.storage) for s in storages):
        _pixels(operands, out, compute, fork)
    elif not any(s.blocked for s in storages):
        _matrix(operands, out, compute, wide, fork)
    else:
        each_element(out, lambda index: compute(*(_scalar(o, index) for o in operands), 1), fork)
    borders(out)


def each_element(out: Operand, value: Callable[[tuple[Index, ...]], Expr], in_parallel: bool = False) -> None:
    """``out[index] = value(index)``, one element after the other; padding channels of floats become 0."""
    clear_padding(out)

    def nest(left: list[int], index: tuple[Index, ...], fork: bool) -> None:
        if not left:
            store(out.buffer, out.storage.at(*index), value(index), 1)
            return
        with loop(left[0], fork and left[0] > 1) as i:
            nest(left[1:], (*index, i), fork and left[0] == 1)

    nest(list(out.storage.shape), (), in_parallel)


def clear_padding(out: Operand) -> None:
    """Makes the padding channels of an output of floats 0."""
    s = out.storage
    used = s.shape[1] % s.block if s.blocked else 0
    if not used or not s.is_float:
        return
    n, _, height, width = s.image
    with loop(n) as i, loop(height) as h, loop(width) as w:
        lanes = s.block - used
        store(out.buffer, s.pixel(i, s.blocks - 1, h, w) + used, splat(0, s.bits, lanes), lanes)


def pixel_lanes(storage: Storage) -> list[tuple[int, int, int]]:
    """The channel blocks of a tensor whose padding channels must not be computed: (first block, channels, how many)."""
    return [(start // storage.block, size, count) for start, size, count in tiles(storage.shape[1], storage.block)]


def store_pixel(out: Operand, offset: Index, value: Expr, lanes: int) -> None:
    """The ``lanes`` valid channels of a block; the others become 0 among floats, where memory may hold NaN."""
    store(out.buffer, offset, value, lanes)
    block = out.storage.block
    if lanes < block and out.storage.is_float:
        store(out.buffer, offset + lanes, splat(0, out.storage.bits, block - lanes), block - lanes)


def _alike(a: Storage, b: Storage) -> bool:
    """Whether equal logical indices lie in equal order, up to borders."""
    return a.shape == b.shape and a.block == b.block


def _by_pixels(s: Storage, out: Storage) -> bool:
    """Whether the axes of an operand are the last ones of an image in ``out``'s rank."""
    return len(s.shape) == len(out.shape) if s.blocked else len(s.shape) <= len(out.shape)


def _stretches(operands: Sequence[Operand], out: Operand, compute: Compute, wide: int, fork: bool) -> None:
    """Operands of one shape and block: stretches are buffers, planes or rows, as far as no border interrupts."""
    storages = [o.storage for o in (*operands, out)]
    s = out.storage

    def stretch(offsets: list[Index], length: int, fork_inside: bool) -> None:
        for start, lanes, count in chunks(length, wide):
            with loop(count, fork_inside) as i:
                at = [offset + start + i * lanes for offset in offsets]
                vectors = [load(o.buffer, a, lanes) for o, a in zip(operands, at, strict=False)]
                store(out.buffer, at[-1], compute(*vectors, lanes), lanes)

    if not any(any(x.border) for x in storages):
        stretch([0] * len(storages), s.numel, fork)
    elif all(x.contiguous_pixels for x in storages):
        with loop(s.image[0] * s.blocks, fork) as plane:
            stretch([x.pixel(0, plane, 0, 0) for x in storages], s.image[2] * s.image[3] * s.block, False)
    else:
        with rows(s, fork) as (n, block, h):
            stretch([x.pixel(n, block, h, 0) for x in storages], s.image[3] * s.block, False)


def _pixels(operands: Sequence[Operand], out: Operand, compute: Compute, fork: bool) -> None:
    """A blocked output: one pixel's block of channels at a time, operands broadcast or strided as they must be."""
    s = out.storage
    n_extent, _, height, width = s.image
    whole = all(_whole_block(o.storage, s) for o in operands)
    parts = [(0, s.block, s.blocks)] if whole else pixel_lanes(s)
    for first, lanes, count in parts:
        with loop(n_extent * count * height, fork) as i:
            plane, h = i // height, i % height
            n, block = plane // count, first + plane % count
            with loop(width) as w:
                vectors = [_block_vector(o, s, n, block, h, w, lanes) for o in operands]
                store_pixel(out, s.pixel(n, block, h, w), compute(*vectors, lanes), lanes)


def _image_shape(s: Storage, out: Storage) -> tuple[int, int, int, int]:
    """Shape of an operand that broadcasts with an image or sequence, as (N, C, H, W)."""
    shape = (1,) * (len(out.shape) - len(s.shape)) + s.shape
    n, c, *spatial = shape
    h, w = spatial if len(spatial) == 2 else (1, spatial[0])
    return n, c, h, w


def _channel_stride(s: Storage, out: Storage) -> int:
    """Elements from channel to channel of a plain operand."""
    _, _, h, w = _image_shape(s, out)
    return h * w


def _whole_block(s: Storage, out: Storage) -> bool:
    """Whether all lanes of a block can be loaded, padding channels included."""
    if _image_shape(s, out)[1] == 1:
        return True
    if s.blocked:
        return s.block == out.block
    padding = out.blocks * out.block - out.shape[1]
    if padding and s.is_float and out.is_float:
        return False  # what lies behind the operand may be NaN
    return _channel_stride(s, out) == 1 and padding * s.item_bytes <= SLACK


def _block_vector(operand: Operand, out: Storage, n: Index, block: Index, h: Index, w: Index, lanes: int) -> Expr:
    """Channels ``block * out.block ...`` of one pixel of a broadcast operand."""
    s, buffer = operand.storage, operand.buffer
    shape = _image_shape(s, out)
    n, h, w = (0 if extent == 1 else i for extent, i in zip((shape[0], *shape[2:]), (n, h, w), strict=True))
    channel = block * out.block
    if s.blocked:
        if shape[1] == 1:
            return broadcast(buffer[s.pixel(n, 0, h, w)], lanes)
        if s.block == out.block:
            return load(buffer, s.pixel(n, block, h, w), lanes)
        scalars = [
            buffer[s.pixel(n, (channel + lane) // s.block, h, w) + (channel + lane) % s.block] for lane in range(lanes)
        ]
        return tirx.Shuffle(scalars, list(range(lanes))) if lanes > 1 else scalars[0]
    if shape[1] == 1:
        return broadcast(buffer[(n * shape[2] + h) * shape[3] + w], lanes)
    stride = _channel_stride(s, out)
    start = (n * shape[1] + channel) * stride + h * shape[3] + w
    return buffer[T.ramp(start, stride, lanes)] if lanes > 1 else buffer[start]


def _matrix(operands: Sequence[Operand], out: Operand, compute: Compute, wide: int, fork: bool) -> None:
    """Plain tensors that broadcast: vectors along the last axis of the collapsed shape."""
    shape, strides = _collapse(out.storage.shape, [o.storage.shape for o in operands])
    outer, inner = shape[:-1], shape[-1]
    with loop(prod(outer), fork) as row:
        offsets = [_row_offset(row, outer, stride[:-1]) for stride in strides]
        for start, lanes, count in chunks(inner, wide):
            with loop(count) as i:
                column = start + i * lanes
                vectors = []
                for o, offset, stride in zip(operands, offsets, strides, strict=True):
                    vectors.append(
                        load(o.buffer, offset + column, lanes) if stride[-1] else broadcast(o.buffer[offset], lanes)
                    )
                store(out.buffer, row * inner + column, compute(*vectors, lanes), lanes)


def _collapse(shape: tuple[int, ...], operands: list[tuple[int, ...]]) -> tuple[list[int], list[list[int]]]:
    """Extents and operand strides; neighbouring axes are one where every operand walks through both or neither."""
    padded = [(1,) * (len(shape) - len(o)) + o for o in operands]
    extents: list[int] = []
    varies: list[list[bool]] = []
    for axis, extent in enumerate(shape):
        if extent == 1:
            continue
        moves = [p[axis] > 1 for p in padded]
        if varies and varies[-1] == moves:
            extents[-1] *= extent
        else:
            extents.append(extent)
            varies.append(moves)
    strides = []
    for k in range(len(operands)):
        step = 1
        stride: list[int] = []
        for extent, moves in zip(reversed(extents), reversed(varies), strict=True):
            stride.insert(0, step if moves[k] else 0)
            step *= extent if moves[k] else 1
        strides.append(stride or [1])
    return extents or [1], strides


def _row_offset(row: Index, extents: list[int], strides: list[int]) -> Index:
    offset: Index = 0
    for extent, stride in zip(reversed(extents), reversed(strides), strict=True):
        offset = offset + row % extent * stride if stride else offset
        row = row // extent
    return offset


def _scalar(operand: Operand, index: tuple[Index, ...]) -> Expr:
    """One element of a broadcast operand."""
    shape = operand.storage.shape
    own = index[len(index) - len(shape) :]
    return operand.buffer[operand.storage.at(*(0 if extent == 1 else i for extent, i in zip(shape, own, strict=True)))]


def broadcast(scalar: Expr, lanes: int) -> Expr:
    """The same run-time value in every lane."""
    return tirx.Broadcast(scalar, lanes) if lanes > 1 else scalar
