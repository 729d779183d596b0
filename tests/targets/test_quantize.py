"""Entry and exit of a graph: quantize, dequantize, requantize, changes of storage, for every block and border."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import Affine, Requantize
from qcompile.reference import arithmetic, bfloat16
from qcompile.targets.kernels.quantize import dequantize, quantize, relayout, requantize
from tests.targets.running import AVX2, VNNI, codes, each_target, run, stored

SHAPES = [  # shape, block of the blocked side
    ((2, 3, 5, 20), 3),
    ((1, 5, 4, 4), 16),
    ((1, 17, 3, 37), 16),
    ((2, 40, 1, 1), 16),
    ((1, 1, 3, 17), 1),
    ((1, 2, 3, 17), 2),
    ((1, 4, 3, 3), 4),
    ((2, 24, 50), 16),
    ((1, 9, 2, 3), 8),
]
PLACES = [*((shape, block, (1, 2, 3, 1)) for shape, block in SHAPES), *((*place, (0, 0, 0, 0)) for place in SHAPES[:4])]
Q = Affine(0.02, 128)


@each_target
@pytest.mark.parametrize(("shape", "block", "border"), PLACES, ids=str)
def test_entry_and_exit(shape, block, border, target):
    rng = np.random.default_rng(0)
    real = rng.standard_normal(shape, np.float32) * 2
    plain, blocked = stored(shape, dtype="float32"), stored(shape, block, border)
    result = run(quantize(Q, plain, blocked, target), [(plain, real)], blocked, target)
    np.testing.assert_array_equal(result, arithmetic.quantize(real, Q))
    data = codes(rng, shape)
    result = run(dequantize(Q, blocked, plain, target), [(blocked, data)], plain, target)
    np.testing.assert_array_equal(result, arithmetic.dequantize(data, Q))


@each_target
@pytest.mark.parametrize("to", [Affine(0.017, -5, "int8"), Affine(0.02, 100), Affine(0.02, 0, "int8")], ids=str)
@pytest.mark.parametrize("blocks", [(0, 0), (16, 16), (0, 16), (16, 0)], ids=str)
def test_requantize(blocks, to, target):
    """To other codes, clipped at one end, and to the other type."""
    shape = (2, 24, 3, 5)
    x, out = stored(shape, blocks[0], (1, 1, 0, 0)), stored(shape, blocks[1], (0, 2, 1, 0), to.dtype)
    data = codes(np.random.default_rng(0), shape)
    result = run(requantize(Requantize(Q, to), x, out, target), [(x, data)], out, target)
    np.testing.assert_array_equal(result, arithmetic.requantize(data, Q, to))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bfloat16"])
@pytest.mark.parametrize(("shape", "block"), SHAPES, ids=str)
def test_relayout(shape, block, dtype):
    data = codes(np.random.default_rng(0), shape).astype("float32" if dtype == "bfloat16" else dtype)
    plain, blocked = stored(shape, dtype=dtype), stored(shape, block, (1, 2, 0, 1), dtype)
    pairs = [(plain, blocked), (blocked, plain)]
    pairs += [(blocked, stored(shape, 16, dtype=dtype))] if block < 16 else []
    for source, to in pairs:
        np.testing.assert_array_equal(run(relayout(source, to, AVX2), [(source, data)], to, AVX2), data)


@each_target
@pytest.mark.parametrize(("shape", "block"), SHAPES, ids=str)
def test_to_bfloat16_and_back(shape, block, target):
    """Rounded to nearest, ties to even; infinities and NaN stay what they are."""
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, -1e-30], np.float32)
    data = np.random.default_rng(0).standard_normal(shape, np.float32)
    data.reshape(-1)[: odd.size] = odd[: data.size]
    plain, blocked = stored(shape, dtype="float32"), stored(shape, block, (1, 2, 0, 1), "bfloat16")
    narrow = run(relayout(plain, blocked, target), [(plain, data)], blocked, target)
    np.testing.assert_array_equal(narrow, bfloat16.rounded(data))
    for source in (blocked, stored(shape, dtype="bfloat16")):
        for to in (plain, stored(shape, block, dtype="float32")):
            np.testing.assert_array_equal(run(relayout(source, to, target), [(source, data)], to, target), narrow)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_relayout_of_other_integers(dtype):
    data = np.random.default_rng(0).integers(-(2**31), 2**31, (1, 17, 3, 5)).astype(dtype)
    plain, blocked = stored(data.shape, dtype=dtype), stored(data.shape, 16, (1, 0, 0, 1), dtype)
    for source, to in ((plain, blocked), (blocked, plain)):
        np.testing.assert_array_equal(run(relayout(source, to, AVX2), [(source, data)], to, AVX2), data)


@each_target
@pytest.mark.parametrize("q", [Affine(0.02, 128), Affine(0.1, 0), Affine(0.1, 255), Affine(0.07, -3, "int8")], ids=str)
def test_odd_numbers(q, target):
    special = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 0.05, 0.15, 0.25, -0.05], np.float32)
    ties = (np.arange(-300, 300) + np.float32(0.5)) * np.float32(q.scale)
    real = np.concatenate([special, ties.astype(np.float32)])
    x, out = stored(real.shape, dtype="float32"), stored(real.shape, dtype=q.dtype)
    result = run(quantize(q, x, out, target), [(x, real)], out, target)
    np.testing.assert_array_equal(result, arithmetic.quantize(real, q))
    assert result[0] == q.zero_point


def test_threads_compute_the_same():
    shape = (1, 3, 100, 100)
    real = np.random.default_rng(0).standard_normal(shape, np.float32)
    x, out, target = stored(shape, dtype="float32"), stored(shape, 3, (1, 1, 1, 1)), VNNI.with_threads(2)
    result = run(quantize(Q, x, out, target), [(x, real)], out, target)
    np.testing.assert_array_equal(result, arithmetic.quantize(real, Q))
