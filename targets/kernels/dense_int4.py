"""Dense layers with int4 weights by groups (``ops.Dense`` with ``group``): two codes a byte, unpacked in registers.

A byte holds the codes of two reduction steps in two's complement: ``byte & 0xF0`` and ``byte << 4`` are 16 times the
codes of the second and the first step as int8, which is what the dot product wants. The sums of a group are exact
multiples of 16, shifted back before they meet the scale of the group::

    for each group g:  part = sum x * (16 w)                 as in any dense layer, in int32
                       acc += scale[n, g] * (part >> 4)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from qcompile.ops import Dense, Epilogue
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.contract import Contraction, Corner, Vector
from qcompile.targets.kernels.conv import (
    Constants,
    Kernel,
    Problem,
    dense_problem,
    dtypes_of,
    layer_kernel,
    shifted_bias,
)
from qcompile.targets.kernels.reduction import Reduction, pack, pad_channels
from qcompile.targets.kernels.tiling import Tile, legal_tiles, order, tile_cycles
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target

_PAIRS = 4  # of reduction steps, written out in the innermost loop
_SCALING = 0.5  # cycles to add one vector of a group's sums to the accumulator, beside the dot products
_UNPACKING = 0.3  # cycles to unpack a vector of weights


@dataclass(frozen=True, slots=True)
class Nibbles:
    """Where the packed weights and the scales of a group lie: steps of the reduction a group, groups."""

    steps: int
    groups: int


class GroupedContraction(Contraction):
    """``Contraction`` whose ``weight`` holds two codes a byte (``pack_nibbles``), beside ``group_scale``."""

    def __init__(
        self,
        reduction: Reduction,
        tile: Tile,
        vector: Vector,
        last: Vector,
        threads: int,
        epilogue: Epilogue,
        dtypes: Mapping[str, str],
        nibbles: Nibbles,
    ):
        super().__init__(reduction, tile, vector, last, threads, epilogue, dtypes)
        self.nibbles = nibbles

    def _sum(
        self, at: Corner, base: b.Index, offsets: list[int], vectors: list[Vector], acc: list[list[b.Buffer]]
    ) -> None:
        steps, groups = self.nibbles.steps, self.nibbles.groups
        lanes, step, full = sum(v.lanes for v in vectors), self.r.group, self.vector.lanes
        weights, scales = at.vector * (full * step * self.r.steps // 2), at.vector * (full * groups)
        parts = [[b.registers(v.lanes, "int32") for v in vectors] for _ in acc]
        with b.loop(groups) as g:
            for row in parts:
                for v, part in zip(vectors, row, strict=True):
                    b.store(part, 0, b.splat(0, "int32", v.lanes), v.lanes)
            for start, size, count in b.tiles(steps // 2, _PAIRS):
                with b.loop(count) as i:
                    for pair in range(size):
                        number = g * (steps // 2) + start + i * size + pair
                        self._pair(base + number * 2 * step, weights + number * lanes * step, offsets, vectors, parts)
            place = scales + g * lanes
            for j, v in enumerate(vectors):
                scale = b.bind(b.cast("int32", b.load(self.buffers["group_scale"], place, v.lanes), v.lanes))
                place = place + v.lanes
                for row, sums in zip(parts, acc, strict=True):
                    part = tirx.shift_right(b.load(row[j], 0, v.lanes), b.splat(4, "int32", v.lanes))
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
        return b.bind(v.dot.widen(sixteenfold))


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
    reduction, vector, last = problem.reduction, problem.vector, problem.last
    tile = tile or default_tile(problem, spec.group)
    packed = pack(constants.weight, reduction, vector.lanes, last.lanes, tile.vectors)
    effective = constants.weight * np.repeat(constants.group_scale, spec.group, axis=1).astype(np.int16)
    channels = _tile_channels(reduction, vector.lanes, last.lanes, tile.vectors)
    arrays = {
        "weight": pack_nibbles(packed, reduction, channels),
        "group_scale": pack_scales(constants.group_scale, channels),
        "bias": pad_channels(
            shifted_bias(spec, replace(constants, weight=effective)), reduction, vector.lanes, last.lanes
        ),
        "multiplier": pad_channels(constants.multiplier.astype(np.float32), reduction, vector.lanes, last.lanes),
    }
    nibbles = Nibbles(spec.group // reduction.group, constants.group_scale.shape[1])
    dtypes = dtypes_of(spec, out, residual)
    nest = GroupedContraction(reduction, tile, vector, last, target.threads, spec.epilogue, dtypes, nibbles)
    note = f"int4/{spec.group} {vector.dot.name} {tile.rows}x{tile.columns}x{tile.vectors * vector.lanes}"
    return layer_kernel("dense_int4", arrays, x, out, residual, nest.emit, note)


def legal_tiles_of(problem: Problem) -> list[Tile]:
    """Every tile whose registers hold, beside the accumulators, the sums of a group and two steps of weights."""
    target = problem.target
    room = target.vector_registers - target.vector_registers // 5
    tiles = legal_tiles(1, problem.reduction.width, problem.vectors, problem.widened, False, target)
    return [tile for tile in tiles if 2 * tile.pixels * tile.vectors + 2 * tile.vectors <= room]


def cycles(problem: Problem, group: int, tile: Tile) -> float:
    """Predicted cycles of one call: the sums, unpacking for each row of tiles, scaling for each group."""
    r = problem.reduction
    groups = r.steps * r.group // group
    scaling = groups * _SCALING * r.width * problem.vectors
    unpacking = _UNPACKING * r.steps * -(-r.width // tile.columns) * problem.vectors
    return tile_cycles(tile, 1, r.width, problem.vectors, r.steps) + scaling + unpacking


def default_tile(problem: Problem, group: int) -> Tile:
    """The tile with the fewest predicted cycles."""
    best = min(legal_tiles_of(problem), key=lambda tile: cycles(problem, group, tile))
    return order(best, problem.input_bytes, problem.weight_bytes, problem.target)


def _tile_channels(reduction: Reduction, lanes: int, last_lanes: int, tile_vectors: int) -> list[int]:
    """Output channels, filled up to whole vectors, of each tile of vectors."""
    channels = (-(-reduction.outputs // lanes) - 1) * lanes + last_lanes
    size = tile_vectors * lanes
    return [min(size, channels - start) for start in range(0, channels, size)]


def pack_nibbles(packed: np.ndarray, reduction: Reduction, channels: list[int]) -> np.ndarray:
    """Codes in reading order (``reduction.pack``) as bytes of two: each step in the low half, the next in the high."""
    parts, start = [], 0
    for count in channels:
        size = reduction.steps * count * reduction.group
        pairs = packed[start : start + size].reshape(reduction.steps // 2, 2, -1).view(np.uint8)
        parts.append((pairs[:, 0] & 0x0F) | (pairs[:, 1] << 4))
        start += size
    return np.concatenate([part.reshape(-1) for part in parts]).view(np.int8)


def pack_scales(group_scale: np.ndarray, channels: list[int]) -> np.ndarray:
    """Scales (N, groups) in reading order: tile of vectors, group, output channel."""
    padded = np.zeros((sum(channels), group_scale.shape[1]), np.uint8)
    padded[: len(group_scale)] = group_scale
    starts = np.cumsum([0, *channels[:-1]])
    tiles = [padded[start : start + count].T for start, count in zip(starts, channels, strict=True)]
    return np.concatenate([tile.reshape(-1) for tile in tiles])
