"""The rounding, clipping and overflow rules that everything else cites."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.ops import Affine, Epilogue
from qcompile.reference import arithmetic
from tests.properties.values import affines
from tests.reference import naive

BOTH = ("uint8", "int8")
# A cast of NaN or of a value beyond int32 warns; its result is the machine's choice, so it must never happen.
pytestmark = pytest.mark.filterwarnings("error")


@given(affines(BOTH), st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_quantize_equals_the_scalar_definition(q, reals):
    codes = arithmetic.quantize(np.array(reals, np.float32), q)
    assert codes.dtype == q.dtype
    assert codes.tolist() == [naive.code(real, q) for real in reals]


def test_quantize_rounds_ties_to_even():
    q = Affine(1.0, 100)
    assert arithmetic.quantize(np.array([-1.5, -0.5, 0.5, 1.5, 2.5]), q).tolist() == [98, 100, 100, 102, 102]


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("int8", -128, 127)])
def test_quantize_of_non_finite_and_huge_values(dtype, low, high):
    q = Affine(0.1, 7, dtype)
    reals = np.array([nan, inf, -inf, 3e38, -3e38, 1e10], np.float32)
    assert arithmetic.quantize(reals, q).tolist() == [7, high, low, high, low, high]


@given(affines(BOTH))
def test_every_code_survives_dequantize_and_quantize(q):
    codes = np.arange(q.qmin, q.qmax + 1).astype(q.dtype)
    assert np.array_equal(arithmetic.quantize(arithmetic.dequantize(codes, q), q), codes)


@given(affines(BOTH), affines(BOTH))
def test_requantize_is_within_half_a_step_of_the_real_value(x, out):
    codes = np.arange(x.qmin, x.qmax + 1).astype(x.dtype)
    real = (codes.astype(np.float64) - x.zero_point) * x.scale
    low, high = ((bound - out.zero_point) * out.scale for bound in (out.qmin, out.qmax))
    result = arithmetic.requantize(codes, x, out).astype(np.float64)
    error = np.abs((result - out.zero_point) * out.scale - np.clip(real, low, high))
    assert error.max() <= 0.5001 * out.scale


@pytest.mark.parametrize(
    ("clip", "bounds"),
    [
        (None, (0, 255)),
        ((0.0, inf), (10, 255)),
        ((0.0, 6.0), (10, 70)),
        ((-inf, inf), (0, 255)),
        ((-9, 0.25), (0, 12)),
    ],
)
def test_code_bounds(clip, bounds):
    assert arithmetic.code_bounds(Affine(0.1, 10), clip) == bounds


@given(affines(BOTH), st.tuples(st.floats(width=32), st.floats(width=32)))
def test_clipping_codes_is_clipping_real_values(q, ends):
    """Fused activation: bounds in codes give what clipping in real numbers and then quantizing gives."""
    clip = tuple(sorted(0.0 if end != end else end for end in ends))
    reals = np.linspace(-300, 300, 99, dtype=np.float32) * np.float32(q.scale)
    low, high = arithmetic.code_bounds(q, clip)
    clipped = arithmetic.quantize(np.clip(reals, *np.float32(clip)), q)
    assert np.array_equal(np.clip(arithmetic.quantize(reals, q).astype(int), low, high), clipped)


def test_products_beyond_int32_saturate():
    q = Affine(1.0, 5)
    v = arithmetic.scaled(np.array([2**31 - 1, -(2**31), 0], np.int32), np.float32(1e30))
    assert arithmetic.finish(v, Epilogue(out=q)).tolist() == [255, 0, 5]


def test_residual_is_added_before_the_one_rounding():
    """1.4 + 1.4 rounds to 3; rounding each on its own would give 2."""
    q = Affine(1.0, 0)
    residual = Affine(0.7, 0)
    v = np.array([1.4], np.float32)
    result = arithmetic.finish(v, Epilogue(out=q, residual=residual), np.array([2], np.uint8))
    assert result.tolist() == [3]


def test_product_and_sum_of_the_residual_are_rounded_apart():
    """A case where a fused multiply-add gives another code, found by search: the sum is a tie only after rounding."""
    factor, scale = np.float32(0.1), np.float32(0.3)
    spec = Epilogue(residual=Affine(float(scale), 0))
    fused = rounded = 0
    for r in range(256):
        v = np.float32(r) * factor
        got = arithmetic.finish(np.array([v]), spec, np.array([r], np.uint8))[0]
        rounded += got == v + np.float32(r) * scale
        fused += got == np.float32(np.float64(v) + np.float64(r) * np.float64(scale))
    assert rounded == 256
    assert fused < 256


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**40])
def test_a_sum_beyond_int32_is_an_error(value):
    with pytest.raises(OverflowError, match=rf"{value}, does not fit the int32"):
        arithmetic.exact_int32(np.array([0, value, 1]))


def test_the_ends_of_int32_fit():
    ends = np.array([2**31 - 1, -(2**31)], np.float64)
    assert arithmetic.exact_int32(ends).tolist() == [2**31 - 1, -(2**31)]


def test_multipliers_are_rounded_once():
    """Products and quotients in float32 steps would differ in the last bit for some of these."""
    x, out = Affine(float(np.float32(0.0235)), 0), Affine(float(np.float32(0.0517)), 0)
    scales = np.float32(np.linspace(0.001, 0.01, 50))
    got = arithmetic.multipliers(x, scales, out)
    assert got.tolist() == [np.float32(x.scale * float(s) / out.scale) for s in scales]
    stepwise = np.float32(x.scale) * scales / np.float32(out.scale)
    assert not np.array_equal(got, stepwise)


def test_pool_multipliers_by_count():
    x, out = Affine(0.5, 0), Affine(0.25, 0)
    assert arithmetic.pool_multipliers(x, 4, out).tolist() == [0, 2, 1, np.float32(2 / 3), 0.5]


@settings(max_examples=30)
@given(
    affines(BOTH), st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=1, max_size=9), st.integers(-128, 127)
)
def test_finish_equals_the_scalar_definition(q, values, r):
    for clip in (None, (0.0, 6.0), (-0.5, 0.5)):
        epilogue = Epilogue(out=q, clip=clip, residual=Affine(0.3, -3, "int8"))
        residual = np.full(len(values), r, np.int8)
        got = arithmetic.finish(np.array(values, np.float32), epilogue, residual)
        assert got.tolist() == [naive.finish(np.float32(v), epilogue, np.int8(r)) for v in values]
