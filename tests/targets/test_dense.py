"""Matrix products with constant weights on every row that this machine runs, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.ops import Dense
from qcompile.targets.kernels.conv import Constants, dense, shifted_bias
from qcompile.targets.kernels.tiling import Tile
from tests.targets.running import AVX2, FLOAT_ROWS, VNNI, each_row, stored
from tests.targets.weighted import FLOAT, INTEGER, X, check, constants_of

SHAPES = [((1, 128), 8), ((1, 8), 130), ((3, 10), 10), ((5, 33), 17), ((2, 3, 7), 5), ((40, 65), 65), ((1,), 1)]


def check_dense(row, shape, outputs, epilogue=INTEGER["codes"], integer=True, tile=None, weights=""):
    spec = Dense(X if integer else None, epilogue, weights=weights)
    x = stored(shape, dtype=spec.activations)
    out = stored((*shape[:-1], outputs))
    constants = constants_of(spec, (outputs, shape[-1]), np.random.default_rng(0))
    return check(dense, spec, constants, x, out, out, row, tile=tile)


@each_row
@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_codes(shape, outputs, row):
    check_dense(row, shape, outputs)


@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_floats(shape, outputs):
    check_dense(AVX2, shape, outputs, FLOAT["float"], integer=False)


@pytest.mark.parametrize("row", FLOAT_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
@pytest.mark.parametrize("epilogue", FLOAT)
def test_bfloat16(epilogue, shape, outputs, row):
    check_dense(row, shape, outputs, FLOAT[epilogue], False, weights="bfloat16")


@each_row
@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
@pytest.mark.parametrize(("epilogue", "weights"), [*((name, "int8") for name in FLOAT), ("float", "float16")])
def test_stored_weights(epilogue, weights, shape, outputs, row):
    """Weights of a float layer that become float32 as they are loaded."""
    kernel = check_dense(row, shape, outputs, FLOAT[epilogue], False, weights=weights)
    assert kernel.constants[0].dtype == weights


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("epilogue", [*INTEGER, *FLOAT])
def test_epilogues(epilogue, row):
    check_dense(row, (4, 18), 21, (INTEGER | FLOAT)[epilogue], epilogue in INTEGER)


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("tile", [(1, 1), (1, 3), (4, 2), (6, 1)], ids=str)
def test_explicit_tiles_and_their_remainders(tile, outer, row):
    check_dense(row, (7, 19), 37, tile=Tile(1, *tile, outer))


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_size_and_tile(data):
    rows, inputs, outputs, columns, vectors = (data.draw(st.integers(1, most)) for most in (9, 40, 70, 6, 3))
    tile = Tile(1, columns, vectors, data.draw(st.booleans()), data.draw(st.sampled_from((0, 64, 128))))
    check_dense(AVX2, (rows, inputs), outputs, tile=tile)


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1030, 300), (60, 70, 75)])
def test_threads(always_fork, rows, inputs, outputs, outer):
    """One row is shared by output channels."""
    kernel = check_dense(AVX2.with_threads(2), (rows, inputs), outputs, tile=Tile(1, min(rows, 4), 2, outer))
    assert "T.parallel" in str(kernel.function)


def test_the_zero_point_goes_into_the_bias():
    constants = Constants(np.array([[1, -2], [127, 127]], np.int8), np.array([10, -5], np.int32), None)
    assert shifted_bias(Dense(X, INTEGER["codes"]), constants).tolist() == [10 + 7, -5 - 7 * 254]


def test_a_shifted_bias_may_wrap():
    """The sum wraps back: only the result has to fit int32."""
    weight, bias = np.full((1, 64), 127, np.int8), np.array([-(2**31) + 100], np.int32)
    shifted = shifted_bias(Dense(X, INTEGER["codes"]), Constants(weight, bias, None))
    assert shifted.dtype == np.int32 and shifted[0] == 2**31 + 100 - 7 * 64 * 127
