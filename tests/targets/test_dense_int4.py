"""Matrix products with int4 weights by groups on every row that this machine runs, against the oracle, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.ops import Dense
from qcompile.targets.kernels.conv import Constants
from qcompile.targets.kernels.dense_int4 import dense_int4, pack_nibbles, pack_scales
from qcompile.targets.kernels.reduction import Runs, dense_reduction
from qcompile.targets.kernels.tiling import Tile
from tests.targets.running import AVX2, VNNI, each_row, stored
from tests.targets.weighted import INTEGER, X, check, constants_of

SHAPES = [((1, 64), 8, 32), ((1, 8), 130, 8), ((3, 96), 10, 32), ((5, 128), 17, 64), ((2, 3, 40), 5, 8)]
SHAPES += [((40, 72), 65, 24), ((16,), 1, 16)]


def check_int4(row, shape, outputs, group, epilogue=INTEGER["codes"], tile=None):
    rng = np.random.default_rng(0)
    spec, inputs = Dense(X, epilogue, group), shape[-1]
    plain = constants_of(Dense(X, epilogue), (outputs, inputs), rng)
    weight = rng.integers(-7, 8, (outputs, inputs)).astype(np.int8)  # around zero, so that few results saturate
    weight[:, 0] = -8
    scales = rng.integers(1, 256, (outputs, inputs // group)).astype(np.uint8)
    scales[:, 0] = 255
    constants = Constants(weight, plain.bias, plain.multiplier / 40, scales)
    x, out = stored(shape), stored((*shape[:-1], outputs))
    return check(dense_int4, spec, constants, x, out, out, row, tile=tile)


@each_row
@pytest.mark.parametrize(("shape", "outputs", "group"), SHAPES)
def test_codes(shape, outputs, group, row):
    check_int4(row, shape, outputs, group)


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("epilogue", INTEGER)
def test_epilogues(epilogue, row):
    check_int4(row, (4, 32), 21, 16, INTEGER[epilogue])


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("tile", [(1, 1), (1, 3), (4, 2), (6, 1)], ids=str)
def test_explicit_tiles_and_their_remainders(tile, outer, row):
    check_int4(row, (7, 24), 37, 8, tile=Tile(1, *tile, outer))


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_any_size_and_tile(data):
    rows, groups, columns, vectors = (data.draw(st.integers(1, most)) for most in (9, 3, 6, 3))
    outputs = data.draw(st.integers(9, 70))
    group = data.draw(st.sampled_from((8, 16, 32, 40)))
    tile = Tile(1, columns, vectors, data.draw(st.booleans()))
    check_int4(AVX2, (rows, groups * group), outputs, group, tile=tile)


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1024, 300), (60, 64, 75)])
def test_threads(always_fork, rows, inputs, outputs, outer):
    """One row is shared by output channels."""
    tile = Tile(1, min(rows, 4), 2, outer)
    kernel = check_int4(AVX2.with_threads(2), (rows, inputs), outputs, 32, tile=tile)
    assert "T.parallel" in str(kernel.function)


@each_row
def test_the_default_tile_leaves_registers_for_the_sums_of_a_group(row):
    kernel = check_int4(row, (64, 64), 256, 32)
    _, columns, channels = kernel.note.split()[-1].split("x")
    assert 2 * int(columns) * int(channels) // row.lanes <= row.vector_registers


def test_a_byte_holds_a_step_and_the_next():
    reduction = dense_reduction(1, 8, 2, False, Runs(4, exact=False))
    packed = np.array([1, 2, 3, 4, -1, -2, -3, -4, 5, 6, 7, 0, -5, -6, -7, -8], np.int8)  # step, channel, element
    got = pack_nibbles(packed, reduction, [2]).view(np.uint8)
    assert got.tolist() == [0x51, 0x62, 0x73, 0x04, 0xBF, 0xAE, 0x9D, 0x8C]


def test_scales_go_by_tile_then_group():
    scales = np.array([[1, 2], [3, 4], [5, 6]], np.uint8)
    assert pack_scales(scales, [2, 2]).tolist() == [1, 3, 2, 4, 5, 0, 6, 0]


def test_weights_take_half_a_byte():
    kernel = check_int4(VNNI, (2, 64), 32, 32)
    weight, scales = kernel.constants[:2]
    assert weight.nbytes == 32 * 64 // 2 and scales.nbytes == 32 * 2
