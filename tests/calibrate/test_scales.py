from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.calibrate import affine, symmetric_weight_scales
from qcompile.calibrate.scales import MIN_SCALE
from qcompile.errors import QCompileError
from qcompile.ops import Affine

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
BOUNDS = st.tuples(FINITE, FINITE).map(sorted)
DTYPES = st.sampled_from(["uint8", "int8"])


def quantize(values: np.ndarray, a: Affine) -> np.ndarray:
    """DESIGN's rule in float64."""
    steps = np.clip(np.rint(values / a.scale), a.qmin - a.zero_point, a.qmax - a.zero_point)
    return (steps + a.zero_point).astype(int)


@settings(max_examples=200, deadline=None)
@given(BOUNDS, DTYPES)
def test_any_range_gets_a_sound_scale_and_a_code_for_0(bounds: list[float], dtype: str):
    a = affine(*bounds, dtype)
    assert math.isfinite(a.scale) and a.scale >= MIN_SCALE and a.scale == float(np.float32(a.scale))
    assert math.isfinite(float(np.float32(1) / np.float32(a.scale)))
    assert isinstance(a.zero_point, int) and a.qmin <= a.zero_point <= a.qmax
    assert quantize(np.zeros(1), a) == [a.zero_point]


@settings(max_examples=100, deadline=None)
@given(BOUNDS, DTYPES, st.lists(st.floats(0, 1), min_size=1))
def test_a_round_trip_errs_by_no_more_than_half_a_step(bounds: list[float], dtype: str, shares: list[float]):
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    values = np.array([low, high, 0.0, *(low * (1 - share) + high * share for share in shares)])
    a = affine(low, high, dtype)
    back = (quantize(values, a) - a.zero_point) * a.scale
    assert np.abs(back - values).max() <= a.scale * 0.5 * (1 + 1e-4)


@settings(max_examples=50, deadline=None)
@given(BOUNDS)
def test_int8_codes_are_uint8_codes_less_128(bounds: list[float]):
    u, s = affine(*bounds), affine(*bounds, "int8")
    assert (s.scale, s.zero_point) == (u.scale, u.zero_point - 128)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "expected"),
    [
        (0, 255, "uint8", Affine(1.0, 0, "uint8")),
        (-128, 127, "int8", Affine(1.0, 0, "int8")),
        (3, 255, "uint8", Affine(1.0, 0, "uint8")),  # widened to 0
        (-510, -10, "uint8", Affine(2.0, 255, "uint8")),
        (-1, 254, "uint8", Affine(1.0, 1, "uint8")),
        (0, 0, "uint8", Affine(1.0, 0, "uint8")),
        (0, 0, "int8", Affine(1.0, -128, "int8")),
        (0, 1e-45, "uint8", Affine(MIN_SCALE, 0, "uint8")),
    ],
)
def test_values_by_hand(low: float, high: float, dtype: str, expected: Affine):
    assert affine(low, high, dtype) == expected


@pytest.mark.parametrize("bounds", [(math.nan, 1), (0, math.inf), (2, 1)])
def test_a_range_that_is_none_is_a_mistake_of_the_caller(bounds: tuple[float, float]):
    with pytest.raises(ValueError, match="not a finite range"):
        affine(*bounds)


@pytest.mark.parametrize("axis", [0, 1])
def test_weight_scales_are_per_channel(axis: int):
    weight = np.array([[[1.0, -2.54]], [[0.127, 0.0]], [[0.0, 0.0]]], np.float32)  # (3, 1, 2)
    scales = symmetric_weight_scales(np.moveaxis(weight, 0, axis), axis=axis)
    np.testing.assert_array_equal(scales, np.array([0.02, 0.001, 1.0], np.float32))
    assert scales.dtype == np.float32


def test_one_scale_for_all_weights():
    weight, bias = np.array([[1.27, 0.5]], np.float32), np.array([3.0, -(2.0**24)], np.float32)
    np.testing.assert_array_equal(symmetric_weight_scales(weight, axis=None), np.float32([0.01]))
    np.testing.assert_array_equal(symmetric_weight_scales(weight, bias, 0.5, axis=None), np.float32([4.0]))


def test_a_large_bias_widens_the_scale_of_small_weights():
    weight, bias = np.array([[1e-6], [1.0], [0.0]], np.float32), np.array([5.0, 5.0, 0.0], np.float32)
    scales = symmetric_weight_scales(weight, bias, input_scale=0.02)
    np.testing.assert_allclose(scales, [5 / (0.02 * 2**23), 1 / 127, 1.0], rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(FINITE, FINITE, st.floats(MIN_SCALE, 2.0**100, width=32))
def test_codes_of_weight_and_bias_stay_in_bounds(weight: float, bias: float, input_scale: float):
    (scale,) = symmetric_weight_scales(np.array([[weight]]), np.array([bias]), input_scale)
    assert np.isfinite(scale) and scale >= MIN_SCALE
    assert abs(np.rint(weight / float(scale))) <= 127
    if scale < np.finfo(np.float32).max:
        assert abs(bias / (float(scale) * input_scale)) <= 2**23 * (1 + 1e-6)


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(QCompileError) as error:
        symmetric_weight_scales(np.array([[1.0], [np.nan]]))
    assert str(error.value) == (
        "NaN or infinity among the weights or the bias; export the model again from a sound checkpoint"
    )
    with pytest.raises(ValueError, match="a bias needs the scale of the input"):
        symmetric_weight_scales(np.ones((1, 1)), np.ones(1))
