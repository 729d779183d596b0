"""Tiles, and the model that chooses among them."""

from __future__ import annotations

import pytest

from qcompile.targets.cuda.architectures import ARCHITECTURES, architecture
from qcompile.targets.cuda.rows import ROWS
from qcompile.targets.cuda.tile_time import TILES, choose_tile, cycles
from qcompile.targets.cuda.tiles import Problem, Tile, tiles

LARGE, SMALL = Problem(100_000, 256, 1, 2304), Problem(49, 512, 1, 4608)
EACH = pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: arch.name)


def test_every_architecture_of_a_build_is_known():
    assert {name for row in ROWS for name in row.architectures} == {row.name for row in ARCHITECTURES}


@EACH
def test_a_layer_gets_a_tile_that_fits(arch):
    for problem in (LARGE, SMALL, Problem(1, 10, 1, 64), Problem(12544, 64, 1, 196, 4), Problem(196, 8, 32, 72, 8)):
        tile = choose_tile(problem, arch)
        assert tile.fits(problem, arch) and tile in set(tiles(problem, arch))
        assert tile.shared_bytes <= arch.block_shared and tile.threads * tile.registers <= 1 << 16


@EACH
def test_the_model_prefers_what_must_be_faster(arch):
    large, small = choose_tile(LARGE, arch), choose_tile(SMALL, arch)
    assert large.pixels * large.channels >= 64 * 64 and large.slices == 1
    assert small.slices > 1  # few blocks, each with a long way to go
    assert choose_tile(Problem(100_000, 64, 1, 576), arch).channels == 64  # the other half of 128 would be for nothing
    wide, narrow = Tile(64, 64, 2, 2, 2), Tile(32, 32, 2, 2, 2)
    assert cycles(LARGE, wide, arch) < cycles(LARGE, narrow, arch)
    assert cycles(Problem(100_000, 256, 1, 4608), wide, arch) > 1.9 * cycles(LARGE, wide, arch)


def test_more_stages_hide_more_of_the_memory():
    few, more = Tile(32, 32, 1, 2, 2), Tile(32, 32, 1, 2, 4)
    assert cycles(SMALL, few, architecture("sm_80")) > cycles(SMALL, more, architecture("sm_80"))
    assert cycles(SMALL, few, architecture("sm_75")) == cycles(SMALL, more, architecture("sm_75"))  # none is under way


def test_blocks_keep_within_a_multiprocessor():
    big = Tile(256, 128, 4, 2, 3)
    assert [big.resident(architecture(name)) for name in ("sm_75", "sm_80", "sm_86")] == [0, 1, 1]
    assert Tile(32, 32, 1, 2, 4).resident(architecture("sm_75")) == 4 - 1
    assert str(Tile(32, 32, 1, 2, 4, 2)) == "32x32 1x2 4 stages in 2 slices"
    assert all(str(tile) for tile in TILES)
