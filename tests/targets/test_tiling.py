"""Default register tiles: they fit the registers and the tensor, and depend on nothing but their arguments."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.targets.kernels.tiling import Tile, default_tile, legal_prefetches, legal_tiles, order, tile_cycles
from qcompile.targets.x86 import ROWS
from tests.targets.running import AVX2, VNNI, each_row


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120) | st.just(12544),
    vectors=st.integers(1, 128),
    reduction=st.integers(1, 3000),
    widened=st.booleans(),
    overlapping=st.booleans(),
    row=st.sampled_from(ROWS),
)
def test_any_tile_fits(height, width, vectors, reduction, widened, overlapping, row):
    """Accumulators, a weight vector each, one spread operand, and a product where it is an instruction of its own."""
    tile = default_tile(height, width, vectors, reduction, widened, overlapping, row)
    assert 1 <= tile.rows <= height and 1 <= tile.columns <= width and 1 <= tile.vectors <= vectors
    assert tile.pixels * tile.vectors + tile.vectors + 1 + widened <= row.vector_registers


@each_row
def test_the_legal_tiles_hold_the_default_and_fit(row):
    for height, width, vectors in [(56, 56, 4), (1, 49, 128), (7, 7, 32), (1, 1, 3)]:
        tiles = legal_tiles(height, width, vectors, False, False, row)
        assert len(set(tiles)) == len(tiles) <= 300
        assert replace(default_tile(height, width, vectors, 64, False, False, row), prefetch=0) in tiles
        for tile in tiles:
            assert tile.rows <= height and tile.columns <= width and tile.vectors <= vectors
            assert tile.pixels * tile.vectors + tile.vectors + 1 <= row.vector_registers


def test_cycles_are_those_of_whole_tiles_and_of_what_remains():
    """Two dot products a cycle; a tile of few accumulators waits for its sums, and remainders count as tiles."""
    inner = tile_cycles(Tile(1, 12, 2), 10, 120, 4, 1001) - tile_cycles(Tile(1, 12, 2), 10, 120, 4, 1)
    assert inner == 10 * 120 * 4 / 2 * 1000
    assert tile_cycles(Tile(1, 1, 1), 10, 120, 4, 100) > 5 * tile_cycles(Tile(1, 12, 2), 10, 120, 4, 100)
    assert tile_cycles(Tile(1, 12, 2), 1, 13, 2, 100) == pytest.approx(
        tile_cycles(Tile(1, 12, 2), 1, 12, 2, 100) + tile_cycles(Tile(1, 1, 2), 1, 1, 2, 100)
    )


def test_weights_that_come_from_afar_and_are_used_a_few_times_are_asked_for():
    assert default_tile(7, 7, 32, 1152, False, False, VNNI).prefetch in legal_prefetches(32, 1152, VNNI)[1:]
    assert default_tile(1, 1, 63, 512, False, False, VNNI).prefetch == 0  # once: memory is busy all the time
    assert default_tile(56, 56, 4, 144, False, False, VNNI).prefetch == 0  # many times: nearly always at hand
    assert default_tile(7, 7, 4, 36, False, False, VNNI).prefetch == 0  # few
    assert legal_prefetches(4, 36, VNNI) == (0,)


@each_row
def test_the_same_question_has_the_same_answer(row):
    """Not by the cache: two builds of one model are equal to the byte."""
    shapes = [(56, 56, 4, 144), (1, 49, 128, 512), (7, 7, 32, 1152), (1, 1, 63, 256)]
    first = [default_tile(*shape, False, False, row) for shape in shapes]
    default_tile.cache_clear()
    assert [default_tile(*shape, False, False, row) for shape in reversed(shapes)] == first[::-1]


def test_large_images_get_a_tile_that_keeps_the_arithmetic_busy():
    """Latency five, two dot products a cycle: ten accumulators or more, and few loads for each."""
    for row in (VNNI, AVX2):
        tile = default_tile(56, 56, 64 // row.lanes, 16, False, False, row)
        assert tile.pixels * tile.vectors >= 10


def test_short_rows_are_tiled_in_two_dimensions():
    assert default_tile(7, 7, 32, 1152, False, False, VNNI).pixels >= 7
    assert default_tile(20, 2, 1, 100, False, False, VNNI).rows > 1


@pytest.mark.parametrize(
    ("input_bytes", "weight_bytes", "channels_outer"),
    [
        (1 << 20, 1 << 20, True),  # neither fits: the weights of one channel tile stay
        (1 << 10, 1 << 20, True),
        (1 << 10, 1 << 10, True),
        (1 << 20, 1 << 10, False),  # all weights stay, pixels pass once
    ],
)
def test_loop_order(input_bytes, weight_bytes, channels_outer):
    tile = Tile(1, 2, 3, prefetch=64)
    assert order(tile, input_bytes, weight_bytes, AVX2) == replace(tile, channels_outer=channels_outer)
