"""Register tiles of convolutions and matmuls: the knobs, and the rule that chooses them from the target alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from qcompile.targets.target import Target

_LATENCY = (
    6  # cycles from one addition to an accumulator to the next: 5 on every x86 core since Skylake, and some slack
)
_EPILOGUE = 4.0  # cycles to finish a result vector
_ALONE, _TOGETHER, _PER_BLOCK = 5.0, 2.75, 4  # the same of short vectors, on their own and all of a block
_OVERLAP = 8.0  # of them, a tile: cycles that run beside the next tile's sums; none where pairs fill the registers
_TILE = 4.0  # fewest cycles to begin and end a tile
_MOST_VECTORS = 8  # of a tile
_SPARE = 2  # registers that LLVM needs for what it loads early, where pixels and weights have their own
_WIDENED = 3  # registers of a product that is widened before it is added, beside the weights of a second step
_PAIRED_SPARE = 8  # and those of weights and of what becomes pairs of pixels
_ROW = 0.1  # of an address, for each row of a tile but the first
_APART = 2.5  # loads of one pixel that have to be put together with another's
_AFAR = 2.0  # cycles that a cache line of weights from beyond the first-level cache makes its first user wait
_ASKING, _ASKING_SHORT = 0.05, 0.25  # cycles of one prefetch instruction, the latter beside short vectors
_A_LINE = 4  # short vectors of weights in a cache line


@dataclass(frozen=True, slots=True)
class Tile:
    """A register tile: ``rows`` x ``columns`` output pixels by ``vectors`` vectors of output channels.

    channels_outer: walk all pixels for one group of output channels before the next (weights stay in cache), or the
    other way round (pixels stay in cache).
    prefetch: how many reduction steps before their use weights are asked for; 0 leaves it to the hardware, which stops
    at every page. What follows the last weights of a tile is the next tile, or the next layer's constants.
    """

    rows: int
    columns: int
    vectors: int
    channels_outer: bool = True
    prefetch: int = 0

    @property
    def pixels(self) -> int:
        return self.rows * self.columns

    @property
    def results(self) -> int:
        """Vectors that are summed up at a time."""
        return self.pixels * self.vectors


@dataclass(frozen=True, slots=True)
class Product:
    """What a tile must know of a dot product with short vectors: ``Dot.ahead`` and ``Dot.pixels``."""

    ahead: int = 1
    pixels: int = 1


_PLAIN = Product()


def accumulators(target: Target, vectors: int, widened: bool, overlapping: bool, product: Product = _PLAIN) -> int:
    """How many accumulators a tile may have beside ``vectors`` weight vectors.

    LLVM loads ahead of their use, so a fifth of the registers is left to it; with every register taken it spills
    accumulators in the inner loop. overlapping: windows of neighbouring pixels share loads, which it keeps as well.
    widened: the product needs a register of its own. product: if steps of a pixel are loaded at once, a register holds
    each pixel, and what else is loaded early are the weights of a step (with pairs of pixels, some of them).
    """
    if product.ahead > 1:
        weights = vectors if product.pixels == 1 else _PAIRED_SPARE
        weights += vectors + _WIDENED if widened else 0
        pixels = (target.vector_registers - _SPARE - weights) // (vectors + 1)
        return pixels // product.pixels * product.pixels * vectors
    early = target.vector_registers // 5 + (target.vector_registers // 4 if overlapping else 0)
    return target.vector_registers - vectors - early - (1 if widened else 0)


def _step_cycles(rows: int, columns: int, vectors: int, product: Product = _PLAIN) -> float:
    """Cycles of one reduction step of a tile: arithmetic ports, load ports, or latency of one accumulator's chain.

    A machine that loads several steps at once has short vectors and issues little beside its products, so loads
    (weights in pairs) count with them. Pairs of pixels are loaded together in a row, else put together; one without a
    partner costs as much, and a vector takes two products of a pair and twice the weights.
    """
    pixels = rows * columns
    if product.ahead > 1:
        paired = -(-pixels // product.pixels) * product.pixels
        together = product.pixels == 1 or rows == 1 or columns % product.pixels == 0
        loads = pixels / product.ahead * (1 if together else _APART) + vectors / 2 * product.pixels
        loads += _ROW * (rows - 1)
        return max((paired * vectors + loads) / 2, _LATENCY / 1.0)
    return max(pixels * vectors / 2, (pixels + vectors) / 2, _LATENCY / 1.0)


def _epilogue(vectors: int, product: Product) -> float:
    """Cycles to finish a result vector.

    Short vectors (see ``_step_cycles``) of a block are finished together if a tile consists of blocks.
    """
    if product.ahead == 1:
        return _EPILOGUE
    return _TOGETHER if vectors % _PER_BLOCK == 0 else _ALONE


def _sizes(extent: int, size: int) -> list[tuple[int, int]]:
    whole, rest = divmod(extent, size)
    return [(size, whole)] * bool(whole) + [(rest, 1)] * bool(rest)


def legal_tiles(
    height: int, width: int, vectors: int, widened: bool, overlapping: bool, target: Target, product: Product = _PLAIN
) -> list[Tile]:
    """Every tile whose accumulators fit the registers and whose extents fit the layer, smallest first.

    height, width: output pixels. vectors: vectors of output channels (of a group). Up to a few hundred. Other knobs
    have their defaults.
    """
    tiles = []
    for count in range(1, min(vectors, _MOST_VECTORS) + 1):
        limit = accumulators(target, count, widened, overlapping, product) // count
        for columns in range(1, min(width, limit) + 1):
            for rows in range(1, min(height, limit // columns) + 1):
                tiles.append(Tile(rows, columns, count))
    return tiles


def legal_prefetches(vectors: int, reduction: int, target: Target) -> tuple[int, ...]:
    """Values of ``Tile.prefetch`` that differ in speed for this many weight vectors; a tile that fits one fits all."""
    weight_bytes = vectors * reduction * target.vector_bits // 8
    return (0, 64, 128) if weight_bytes > target.l2_bytes // 8 else (0,)


def tile_cycles(tile: Tile, height: int, width: int, vectors: int, reduction: int, product: Product = _PLAIN) -> float:
    """Predicted cycles of height x width pixels of one image and group, with pixels in the first-level cache.

    vectors: vectors of output channels. reduction: steps. Remainders at the right, the bottom and the last channels run
    as smaller tiles, and count as such; every tile also pays for its epilogue, so that a tile is not chosen for its
    inner loop alone. Prefetching is work for every pass over the weights, and saves the wait of the first; weights that
    are used once arrive as fast as memory can send them, whether asked for or not.
    """
    passes = -(-height // tile.rows) * -(-width // tile.columns)
    short = product.ahead > 1
    beside = _OVERLAP if product.pixels == 1 else 0.0
    asking = (_ASKING_SHORT if short else _ASKING) * passes - (_AFAR if passes > 1 else 0.0)
    lines = vectors * reduction * product.pixels / _A_LINE if short else vectors * reduction
    cycles = lines * asking if tile.prefetch else 0.0
    for v, nv in _sizes(vectors, tile.vectors):
        for h, nh in _sizes(height, tile.rows):
            for w, nw in _sizes(width, tile.columns):
                inner = reduction * _step_cycles(h, w, v, product)
                cycles += nv * nh * nw * (inner + max(_TILE, _epilogue(v, product) * h * w * v - beside))
    return cycles


@lru_cache(maxsize=4096)
def default_tile(
    height: int,
    width: int,
    vectors: int,
    reduction: int,
    widened: bool,
    overlapping: bool,
    target: Target,
    product: Product = _PLAIN,
) -> Tile:
    """The legal tile with the fewest cycles, smaller ones first among equals; weights asked for where that pays."""
    best, best_cost = Tile(1, 1, 1), float("inf")
    for tile in legal_tiles(height, width, vectors, widened, overlapping, target, product):
        if tile.rows > 1 and product.pixels == 1 and tile.columns < min(width, 8) and tile.columns != width:
            continue  # several rows only where a row is too short to fill the registers
        cost = tile_cycles(tile, height, width, vectors, reduction, product)
        if cost < best_cost * 0.999:
            best, best_cost = tile, cost
    asking = [replace(best, prefetch=prefetch) for prefetch in legal_prefetches(vectors, reduction, target)]
    return min(asking, key=lambda tile: tile_cycles(tile, height, width, vectors, reduction, product))


def order(tile: Tile, input_bytes: int, weight_bytes: int, target: Target) -> Tile:
    """``tile`` with the loop order that keeps the larger reuse in the first-level cache."""
    channels_outer = not (weight_bytes <= target.l1_bytes // 2 and input_bytes > target.l1_bytes // 2)
    return replace(tile, channels_outer=channels_outer)
