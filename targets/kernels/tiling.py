"""Register tiles of convolutions and matmuls: the knobs, and the rule that chooses them from the target alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from qcompile.targets.target import Target

_LATENCY = 5  # cycles until a dot product or FMA can be added to again, on every x86 core since Skylake


@dataclass(frozen=True, slots=True)
class Tile:
    """A register tile: ``rows`` x ``columns`` output pixels by ``vectors`` vectors of output channels.

    channels_outer: walk all pixels for one group of output channels before the next (weights stay in cache), or the
    other way round (pixels stay in cache).
    """

    rows: int
    columns: int
    vectors: int
    channels_outer: bool = True

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


def accumulators(target: Target, vectors: int, widened: bool, overlapping: bool) -> int:
    """How many accumulators a tile may have beside ``vectors`` weight vectors.

    LLVM loads ahead of their use, so a fifth of the registers is left to it; with every register taken it spills
    accumulators in the inner loop. overlapping: windows of neighbouring pixels share loads, which it keeps as well.
    widened: the product needs a register of its own.
    """
    ahead = target.vector_registers // 5 + (target.vector_registers // 4 if overlapping else 0)
    return target.vector_registers - vectors - ahead - (1 if widened else 0)


def _step_cycles(pixels: int, vectors: int) -> float:
    """Cycles of one reduction step of a tile: arithmetic ports, load ports, or latency of one accumulator's chain."""
    return max(pixels * vectors / 2, (pixels + vectors) / 2, _LATENCY / 1.0)


def _sizes(extent: int, size: int) -> list[tuple[int, int]]:
    whole, rest = divmod(extent, size)
    return [(size, whole)] * bool(whole) + [(rest, 1)] * bool(rest)


@lru_cache(maxsize=4096)
def default_tile(
    height: int, width: int, vectors: int, reduction: int, widened: bool, overlapping: bool, target: Target
) -> Tile:
    """The tile with the fewest cycles for height x width pixels, ``vectors`` channel vectors, ``reduction`` steps.

    Remainders at the right, the bottom and the last channels run as smaller tiles, and count as such; every tile also
    pays for its epilogue, so that a tile is not chosen for its inner loop alone.
    """
    best, best_cost = Tile(1, 1, 1), float("inf")
    epilogue = 8.0  # instructions a result vector, two a cycle with their latency
    for count in range(1, min(vectors, 8) + 1):
        limit = accumulators(target, count, widened, overlapping) // count
        for columns in range(1, min(width, limit) + 1):
            for rows in range(1, min(height, max(1, limit // columns)) + 1):
                if rows > 1 and columns < min(width, 8) and columns != width:
                    continue  # several rows only where a row is too short to fill the registers
                if rows * columns > max(limit, 1):
                    continue
                cost = 0.0
                for v, nv in _sizes(vectors, count):
                    for h, nh in _sizes(height, rows):
                        for w, nw in _sizes(width, columns):
                            tile = reduction * _step_cycles(h * w, v) + epilogue * h * w * v / 2 + 12
                            cost += nv * nh * nw * tile
                if cost < best_cost * 0.999:
                    best, best_cost = Tile(rows, columns, count), cost
    return best


def order(tile: Tile, input_bytes: int, weight_bytes: int, target: Target) -> Tile:
    """``tile`` with the loop order that keeps the larger reuse in the first-level cache."""
    channels_outer = not (weight_bytes <= target.l1_bytes // 2 and input_bytes > target.l1_bytes // 2)
    return Tile(tile.rows, tile.columns, tile.vectors, channels_outer)
