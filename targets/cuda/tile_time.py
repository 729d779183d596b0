"""How long a product takes with a tile, by a model of a multiprocessor, and the tile that a layer gets unmeasured.

A multiprocessor has some blocks at once. In a turn each multiplies one stage of every slice, which takes of

* Tensor Cores  the stage's multiply-accumulates, at a lower rate where there are fewer than four warps in all;
* shared memory what copies write and warps read: of a block's rows each warp reads those that it multiplies;
* the L2 cache  what copies read;
* schedulers    an instruction a cycle of each four: products, matrix loads, copies and the loop itself.
The blocks of a multiprocessor share these, so a turn is as long as the scarcest one takes for all of them; but never
shorter than one block alone needs from barrier to barrier, nor than memory takes for the stages that are under way.
Full rounds of blocks are followed by one of what is left. Latencies: Sun et al., "Dissecting Tensor Cores via
Microbenchmarks", 2022, and the papers that ``architectures`` names.
"""

from __future__ import annotations

from dataclasses import replace

from qcompile.targets.cuda.architectures import Architecture
from qcompile.targets.cuda.tiles import STEP, Problem, Tile

_SHARED = 128  # bytes a cycle: 32 banks of 4
_SCHEDULERS = 4
_TURN = 120  # cycles from barrier to barrier that nothing hides: barrier, matrix load, two dependent products
_MEMORY = 500  # cycles until a copy has arrived, between a hit and a miss of the L2 cache
_ENDS = 1000  # cycles of a block before its first product and after its last
# Instructions of a warp, counted in the main loops' machine code: of a turn beside products, loads and copies; of a
# copy with its address.
_LOOP, _COPY = 32, 8
_SUM = 3  # cycles that a sum of another slice takes

# Few and well tried: a model that is a little wrong finds, among hundreds, the tile that it is most wrong about.
TILES = (
    Tile(128, 256, 2, 4, 3),
    Tile(256, 128, 4, 2, 3),
    Tile(128, 128, 2, 2, 3),
    Tile(128, 128, 2, 4, 3),
    Tile(256, 64, 4, 2, 3),
    Tile(128, 64, 2, 2, 4),
    Tile(64, 128, 2, 2, 4),
    Tile(128, 32, 4, 1, 4),
    Tile(64, 64, 2, 2, 4),
    Tile(64, 64, 2, 2, 3, 2),
    Tile(64, 32, 2, 1, 4),
    Tile(32, 64, 1, 2, 4),
    Tile(32, 64, 1, 2, 4, 2),
    Tile(32, 64, 1, 2, 3, 4),
    Tile(32, 32, 1, 2, 4),
    Tile(32, 32, 1, 2, 4, 2),
    Tile(32, 32, 1, 2, 3, 4),
    Tile(16, 32, 1, 1, 4),
    Tile(16, 32, 1, 1, 4, 4),
    Tile(16, 64, 1, 2, 4, 4),
)


def cycles(problem: Problem, tile: Tile, arch: Architecture) -> float:
    """Of one launch, predicted."""
    most = tile.resident(arch)
    each = -(-problem.blocks(tile) // arch.processors)
    full, rest = divmod(each, most)
    turns = -(-problem.steps // tile.slices)
    ends = _ENDS + _SUM * tile.rows * tile.columns // 32 * (tile.slices - 1)

    def round_of(blocks: int) -> float:
        return turns * _turn(problem, tile, arch, blocks) + ends

    return full * round_of(most) + (round_of(rest) if rest else 0)


def _turn(problem: Problem, tile: Tile, arch: Architecture, blocks: int) -> float:
    """Cycles of one turn of so many blocks on a multiprocessor."""
    warps, stage = tile.warps * tile.slices, tile.pixels + tile.channels
    products = tile.rows * tile.columns // 64  # of 16 x 8, of two halves of a stage
    loads = (tile.rows + tile.columns) // 8
    copies = (tile.pixels * STEP // problem.piece + tile.channels * 4) / (32 * tile.warps)
    rate = arch.macs * min(1.0, blocks * warps / _SCHEDULERS)
    narrow = 1 if problem.piece == 16 else 16 // problem.piece / 2  # small pieces leave banks unused
    block = max(
        tile.pixels * tile.channels * STEP / rate,
        (tile.rows + tile.columns) * STEP * tile.warps / _SHARED + stage * STEP * narrow / _SHARED,
        stage * STEP / arch.l2_bytes,
        tile.warps * (products + loads + _COPY * copies + _LOOP) / _SCHEDULERS,
    )
    taken = block * tile.slices
    waited = _MEMORY / (tile.stages - 1) if arch.copies else 0.0
    return max(blocks * taken, taken + _TURN + (0 if arch.copies else _MEMORY), waited)


def choose_tile(problem: Problem, arch: Architecture, more: int = 0) -> Tile:
    """The one of ``TILES`` with the fewest predicted cycles; the earlier one among equals.

    Where copies are not asynchronous, more than two stages bring nothing. more: as for ``Tile.fits``.
    """
    known = TILES if arch.copies else [replace(tile, stages=2) for tile in TILES]
    fitting = (tile for tile in known if tile.fits(problem, arch, more))
    return min(fitting, key=lambda tile: cycles(problem, tile, arch))
