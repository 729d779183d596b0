"""Narrow floats against numpy's own float16, and ml_dtypes' float8, which TVM brings."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from qcompile.reference import narrow

TYPES = {"float16": np.float16, "float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2}


def numbers() -> np.ndarray:
    """Of all magnitudes, ties among them."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=20000) * 2.0 ** rng.integers(-30, 17, 20000)
    ties = np.arange(-4096, 4096) / 256 * 2.0 ** rng.integers(-24, 10, 8192)
    return np.concatenate([wide, ties, [0.0, -0.0]]).astype(np.float32)


@pytest.mark.parametrize("dtype", TYPES)
def test_nearest_numbers_and_their_bits(dtype):
    row, values = narrow.NARROW[dtype], numbers()
    want = np.clip(values, -row.largest, row.largest).astype(TYPES[dtype])
    np.testing.assert_array_equal(narrow.rounded(values, dtype), want.astype(np.float32))
    np.testing.assert_array_equal(narrow.to_bits(values, dtype), want.view(row.bits))


@pytest.mark.parametrize("dtype", TYPES)
def test_every_finite_number_comes_back(dtype):
    row = narrow.NARROW[dtype]
    bits = np.arange(2 ** (8 * np.dtype(row.bits).itemsize), dtype=row.bits)
    values = bits.view(TYPES[dtype]).astype(np.float32)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(narrow.from_bits(bits[finite], dtype), values[finite])
    np.testing.assert_array_equal(narrow.to_bits(values[finite], dtype), bits[finite])


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_beyond(dtype):
    row = narrow.NARROW[dtype]
    told = narrow.rounded(np.array([np.inf, -1e30, np.nan], np.float32), dtype)
    np.testing.assert_array_equal(told, [row.largest, -row.largest, np.nan])
    bits = narrow.to_bits(np.array([np.nan], np.float32), dtype)
    assert bits == row.nan and np.isnan(narrow.from_bits(bits, dtype))


def test_other_types_are_taken_along():
    values = np.array([1.0 + 2**-9, 1 / 3], np.float32)
    assert narrow.rounded(values, "float32") is values
    np.testing.assert_array_equal(
        narrow.rounded(values, "bfloat16"), narrow.from_bits(narrow.to_bits(values, "bfloat16"), "bfloat16")
    )
