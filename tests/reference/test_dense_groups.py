"""Dense layers with int4 weights by groups, against plain loops in Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.ops import Affine, Dense, Epilogue, from_json, to_json
from qcompile.reference.convolution import dense
from tests.reference import naive

X, OUT, RESIDUAL = Affine(0.02, 77), Affine(0.5, 11), Affine(0.3, 200)


def by_loops(spec, x, weight, bias, multiplier, group_scale, residual=None):
    result = np.empty((len(x), len(weight)), np.float64)
    for m in range(len(x)):
        for n in range(len(weight)):
            total = int(bias[n])
            for g in range(weight.shape[1] // spec.group):
                part = 0
                for k in range(g * spec.group, (g + 1) * spec.group):
                    part += (int(x[m, k]) - spec.x.zero_point) * int(weight[n, k])
                total += int(group_scale[n, g]) * part
            other = None if residual is None else residual[m, n]
            result[m, n] = naive.finish(naive.scaled(total, multiplier[n]), spec.epilogue, other)
    return result


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([8, 16, 32]), st.integers(1, 3), st.booleans())
def test_equals_loops(seed, group, groups, with_residual):
    rng = np.random.default_rng(seed)
    spec = Dense(X, Epilogue(OUT, (0.0, 60.0), RESIDUAL if with_residual else None), group)
    x, residual = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((3, group * groups), (3, 5)))
    weight = rng.integers(-8, 8, (5, group * groups)).astype(np.int8)
    group_scale = rng.integers(1, 256, (5, groups)).astype(np.uint8)
    bias = rng.integers(-(2**20), 2**20, 5).astype(np.int32)
    multiplier = rng.uniform(1e-5, 1e-3, 5).astype(np.float32)
    args = [x, weight, bias, multiplier, group_scale, *([residual] if with_residual else [])]
    got = dense(spec, *args)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, by_loops(spec, *args))


def test_equal_scales_are_an_int8_layer():
    """Codes times 16 in one group for all are what int8 weights say, to the bit."""
    rng = np.random.default_rng(0)
    x, weight = rng.integers(0, 256, (4, 32)).astype(np.uint8), rng.integers(-8, 8, (6, 32)).astype(np.int8)
    bias, multiplier = np.arange(6, dtype=np.int32), np.full(6, 1e-3, np.float32)
    grouped = dense(Dense(X, Epilogue(OUT), 8), x, weight, bias, multiplier, np.full((6, 4), 16, np.uint8))
    np.testing.assert_array_equal(grouped, dense(Dense(X, Epilogue(OUT)), x, weight * 16, bias, multiplier))


def test_a_sum_beyond_int32_is_an_error():
    x, weight = np.full((1, 8192), 255, np.uint8), np.full((1, 8192), -8, np.int8)
    args = (np.zeros(1, np.int32), np.ones(1, np.float32), np.full((1, 256), 255, np.uint8))
    with pytest.raises(OverflowError, match="does not fit the int32 accumulator"):
        dense(Dense(Affine(1.0, 0), Epilogue(OUT), 32), x, weight, *args)


def test_the_specification_survives_its_json():
    spec = Dense(X, Epilogue(OUT), 32)
    assert from_json(to_json(spec)) == spec
