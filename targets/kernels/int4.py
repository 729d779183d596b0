"""Layers with int4 weights by groups (``group`` in their specification): two codes a byte, unpacked in registers.

A byte holds the codes of two reduction steps in two's complement: ``byte & 0xF0`` and ``byte << 4`` are 16 times the
codes of the second and the first step as int8, which is what the dot product wants. Of codes, the sums of a group are
exact multiples of 16, shifted back before they meet the scale of the group; of floats, the multiplier is smaller::

    for each group g:  part = sum x * (16 w)                 as in any other layer
                       acc += scale[n, g] * (part >> 4)
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from math import prod

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from qcompile.ops import Conv2d, Dense
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.contract import Contraction, Corner, Vector
from qcompile.targets.kernels.conv import (
    Constants,
    Kernel,
    Problem,
    conv2d_problem,
    dense_problem,
    dtypes_of,
    layer_kernel,
    shifted_bias,
    with_border,
)
from qcompile.targets.kernels.reduction import Reduction, Segment, pack, pad_channels, written_out
from qcompile.targets.kernels.tiling import Tile, legal_tiles, order, tile_cycles
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target

_PAIRS = 4  # of reduction steps, written out in the innermost loop
_SCALING = 0.5  # cycles to add one vector of a group's sums to the accumulator, beside the dot products
_UNPACKING = 0.3  # cycles to unpack a vector of weights
_TO_FLOAT = 1.0  # more, to float32


class GroupedContraction(Contraction):
    """``Contraction`` whose ``weight`` holds two codes a byte (``pack_nibbles``), beside ``group_scale``.

    Its reduction has one segment; a group is what lies within all of its loops but the ``inner`` ones.
    """

    @cached_property
    def outer(self) -> tuple[tuple[int, int], ...]:
        """The loops around a group."""
        (segment,) = self.r.segments
        return segment.loops[: len(segment.loops) - segment.inner]

    @cached_property
    def within(self) -> Segment:
        """Pairs of steps of one group."""
        (segment,) = self.r.segments
        return Segment(0, segment.loops[len(self.outer) :], segment.steps // 2)

    @cached_property
    def groups(self) -> int:
        return prod(extent for extent, _ in self.outer)

    def _sum(
        self, at: Corner, base: b.Index, offsets: list[int], vectors: list[Vector], acc: list[list[b.Buffer]]
    ) -> None:
        lanes, full = sum(v.lanes for v in vectors), self.vector.lanes
        weights, scales = at.vector * (full * self.r.group * self.r.steps // 2), at.vector * (full * self.groups)
        parts = [[b.registers(v.lanes, v.sums) for v in vectors] for _ in acc]

        def nest(loops: tuple[tuple[int, int], ...], base: b.Index, number: b.Index) -> None:
            if loops:
                (extent, stride), *inner = loops
                with b.loop(extent) as i:
                    nest(tuple(inner), base + i * stride, number * extent + i)
                return
            self._group(base, weights + number * (self.within.length * lanes * self.r.group), offsets, vectors, parts)
            self._scale(scales + number * lanes, vectors, parts, acc)

        nest(self.outer, base, 0)

    def _group(
        self, base: b.Index, weights: b.Index, offsets: list[int], vectors: list[Vector], parts: list[list[b.Buffer]]
    ) -> None:
        """The sums of one group."""
        for row in parts:
            for v, part in zip(vectors, row, strict=True):
                b.store(part, 0, b.splat(0, v.sums, v.lanes), v.lanes)
        size = sum(v.lanes for v in vectors) * self.r.group  # bytes of a pair
        loops, bodies = written_out(self.within, 2 * self.r.group, _PAIRS)

        def nest(loops: tuple[tuple[int, int], ...], pairs: int, base: b.Index, weights: b.Index) -> None:
            if loops:
                (extent, stride), *inner = loops
                pairs //= extent
                with b.loop(extent) as i:
                    nest(tuple(inner), pairs, base + i * stride, weights + i * (pairs * size))
                return
            for body in bodies:
                with b.loop(body.times) as i:
                    for number, start in enumerate(body.starts):
                        place = weights + i * (len(body.starts) * size) + (body.step + number) * size
                        self._pair(base + (i * body.stride + start), place, offsets, vectors, parts)

        nest(loops, self.within.length, base, weights)

    def _scale(
        self, place: b.Index, vectors: list[Vector], parts: list[list[b.Buffer]], acc: list[list[b.Buffer]]
    ) -> None:
        """Adds the sums of a group, times its scales, to the accumulators."""
        for j, v in enumerate(vectors):
            scale = b.bind(b.cast(v.sums, b.load(self.buffers["group_scale"], place, v.lanes), v.lanes))
            place = place + v.lanes
            for row, sums in zip(parts, acc, strict=True):
                part = b.load(row[j], 0, v.lanes)
                if v.sums == "int32":
                    part = tirx.shift_right(part, b.splat(4, "int32", v.lanes))
                b.store(sums[j], 0, b.load(sums[j], 0, v.lanes) + scale * part, v.lanes)

    def _pair(
        self, x: b.Index, weights: b.Index, offsets: list[int], vectors: list[Vector], parts: list[list[b.Buffer]]
    ) -> None:
        """Two steps of the reduction: those of the low and of the high halves of the bytes at ``weights``."""
        low, high = [], []
        for v in vectors:
            packed = b.bind(b.load(self.buffers["weight"], weights, v.lanes * self.r.group))
            low.append(self._unpacked(v, packed, False))
            high.append(self._unpacked(v, packed, True))
            weights = weights + v.lanes * self.r.group
        for number, halves in enumerate((low, high)):
            for offset, row in zip(offsets, parts, strict=True):
                self._accumulate(self._spread(x + (offset + number * self.r.group)), vectors, halves, row)

    def _unpacked(self, v: Vector, packed: Expr, high: bool) -> Expr:
        count = v.lanes * self.r.group
        byte = packed if high else tirx.shift_left(packed, b.splat(4, "int8", count))
        sixteenfold = tirx.bitwise_and(byte, b.splat(-16, "int8", count)) if high else byte
        return b.bind(v.dot.widen(sixteenfold) if v.dot else b.cast("float32", sixteenfold, count))


def dense_int4(
    spec: Dense,
    constants: Constants,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    target: Target,
    tile: Tile | None = None,
) -> Kernel:
    """x (..., K), out (..., N), residual (..., N): plain; weight (N, K) int8 in [-8, 7], group_scale (N, groups)."""
    problem = dense_problem(spec, constants.weight.shape, x, out, residual, target)
    return _kernel("dense_int4", spec, constants, problem, x, out, residual, tile)


def conv2d_int4(
    spec: Conv2d,
    constants: Constants,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    target: Target,
    tile: Tile | None = None,
) -> Kernel:
    """As ``conv.conv2d``: weight (O, I / groups, KH, KW) or without KH, int8 in [-8, 7]; x in blocks of 16 channels."""
    weight = constants.weight if constants.weight.ndim == 4 else constants.weight[:, :, None, :]
    problem = conv2d_problem(spec, weight.shape, x, out, residual, target)
    rows = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)
    return _kernel("conv2d_int4", spec, replace(constants, weight=rows), problem, x, out, residual, tile)


def _kernel(
    name: str,
    spec: Conv2d | Dense,
    constants: Constants,
    problem: Problem,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    tile: Tile | None,
) -> Kernel:
    """constants: with a weight (O, K), groups side by side."""
    reduction, vector, last = problem.reduction, problem.vector, problem.last
    tile = tile or default_tile(problem, spec.group)
    constants = constants if spec.x else replace(constants, multiplier=constants.multiplier / np.float32(16))
    packed = pack(constants.weight, reduction, vector.lanes, last.lanes, tile.vectors)
    effective = constants.weight * np.repeat(constants.group_scale, spec.group, axis=1).astype(np.int16)
    channels = _tile_channels(reduction, vector.lanes, last.lanes, tile.vectors)
    arrays = {
        "weight": pack_nibbles(packed, reduction, channels),
        "group_scale": pack_scales(constants.group_scale, channels, reduction.groups),
        "bias": pad_channels(
            shifted_bias(spec, replace(constants, weight=effective)), reduction, vector.lanes, last.lanes
        ),
        "multiplier": pad_channels(constants.multiplier.astype(np.float32), reduction, vector.lanes, last.lanes),
    }
    threads, dtypes = problem.target.threads, dtypes_of(spec, out, residual)
    nest = GroupedContraction(reduction, tile, vector, last, threads, spec.epilogue, dtypes)
    product = vector.dot.name if vector.dot else "fma"
    note = f"int4/{spec.group} {product} {tile.rows}x{tile.columns}x{tile.vectors * vector.lanes}"
    return layer_kernel(name, arrays, x, out, residual, with_border(nest.emit, out), note)


def legal_tiles_of(problem: Problem) -> list[Tile]:
    """Every tile whose registers hold, beside the accumulators, the sums of a group and two steps of weights."""
    target, r = problem.target, problem.reduction
    room = target.vector_registers - target.vector_registers // 5
    tiles = legal_tiles(r.height, r.width, problem.vectors, problem.widened, False, target)
    return [tile for tile in tiles if 2 * tile.pixels * tile.vectors + 2 * tile.vectors <= room]


def cycles(problem: Problem, group: int, tile: Tile) -> float:
    """Predicted cycles of one call: the sums, unpacking for each row of tiles, scaling for each group."""
    r = problem.reduction
    groups = r.steps * r.group // group
    scaling = groups * _SCALING * r.height * r.width * problem.vectors
    tiles = -(-r.height // tile.rows) * -(-r.width // tile.columns)
    unpacking = (_UNPACKING + (0 if problem.vector.dot else _TO_FLOAT)) * r.steps * tiles * problem.vectors
    sums = tile_cycles(tile, r.height, r.width, problem.vectors, r.steps)
    return r.batch * r.groups * (sums + scaling + unpacking)


def default_tile(problem: Problem, group: int) -> Tile:
    """The tile with the fewest predicted cycles."""
    best = min(legal_tiles_of(problem), key=lambda tile: cycles(problem, group, tile))
    return order(best, problem.input_bytes, problem.weight_bytes, problem.target)


def _tile_channels(reduction: Reduction, lanes: int, last_lanes: int, tile_vectors: int) -> list[int]:
    """Output channels, filled up to whole vectors, of each tile of vectors of a group."""
    channels = (-(-reduction.outputs // lanes) - 1) * lanes + last_lanes
    size = tile_vectors * lanes
    return [min(size, channels - start) for start in range(0, channels, size)]


def pack_nibbles(packed: np.ndarray, reduction: Reduction, channels: list[int]) -> np.ndarray:
    """Codes in reading order (``reduction.pack``) as bytes of two: each step in the low half, the next in the high."""
    parts, start = [], 0
    for count in channels * reduction.groups:
        size = reduction.steps * count * reduction.group
        pairs = packed[start : start + size].reshape(reduction.steps // 2, 2, -1).view(np.uint8)
        parts.append((pairs[:, 0] & 0x0F) | (pairs[:, 1] << 4))
        start += size
    return np.concatenate([part.reshape(-1) for part in parts]).view(np.int8)


def pack_scales(group_scale: np.ndarray, channels: list[int], groups: int = 1) -> np.ndarray:
    """Scales (O, groups of weights) in reading order: group of channels, tile of vectors, group of weights, channel."""
    of_group = group_scale.reshape(groups, -1, group_scale.shape[1])
    padded = np.zeros((groups, sum(channels), group_scale.shape[1]), np.uint8)
    padded[:, : of_group.shape[1]] = of_group
    starts = np.cumsum([0, *channels[:-1]])
    tiles = [rows[start : start + n].T for rows in padded for start, n in zip(starts, channels, strict=True)]
    return np.concatenate([tile.reshape(-1) for tile in tiles])
