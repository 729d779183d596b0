"""Average pooling, mean, bilinear resize: against scalar loops, real numbers and TVM's float operators."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from tvm import relax

from qcompile.ops import Affine, AvgPool2d, Epilogue, Mean, ResizeLinear
from qcompile.reference import islands, pooling
from tests.properties import cases
from tests.reference import naive
from tests.reference.float_form import assert_within_half_a_step, run

BOTH = ("uint8", "int8")


@settings(max_examples=60, deadline=None)
@given(cases.avg_pool2d_case(BOTH))
def test_avg_pool2d_equals_loops(case):
    result = run(case)
    assert (result.shape, result.dtype) == (case.shape, case.dtype)
    spec, (x, multiplier) = case.spec, case.args
    for index in naive.some_indices(case.shape):
        total, count = naive.avg_pool2d_sum(spec, x, index)
        count = math.prod(spec.window) if spec.count_include_pad else count
        v = naive.scaled(total, multiplier[count])
        assert result[index] == naive.finish(v, spec.epilogue, None)


@settings(max_examples=40, deadline=None)
@given(cases.mean_case(BOTH))
def test_mean_equals_the_definition(case):
    spec, x = case.spec, case.args[0]
    result = run(case)
    assert (result.shape, result.dtype) == (case.shape, case.dtype)
    count = math.prod(x.shape[a] for a in spec.axes)
    factor = np.float32(spec.x.scale / (count * (spec.epilogue.out.scale if spec.epilogue.out else 1)))
    totals = (x.astype(object) - spec.x.zero_point).sum(axis=spec.axes, keepdims=spec.keepdims)
    totals = np.asarray(totals, object).reshape(case.shape)
    for index in naive.some_indices(case.shape):
        v = naive.scaled(totals[index], factor)
        assert result[index] == naive.finish(v, spec.epilogue, None)


@settings(max_examples=60, deadline=None)
@given(cases.avg_pool2d_case(BOTH) | cases.mean_case(BOTH))
def test_averages_are_within_half_a_step_of_real_numbers(case):
    assert_within_half_a_step(case)


@settings(max_examples=40, deadline=None)
@given(cases.resize_linear_case(BOTH))
def test_resize_linear_equals_loops(case):
    spec, (x, index_h, weight_h, index_w, weight_w) = case.spec, case.args
    result = run(case)
    assert (result.shape, result.dtype) == (case.shape, case.dtype)
    factor = np.float32(spec.x.scale / (2**22 * (spec.epilogue.out.scale if spec.epilogue.out else 1)))
    for n, c, h, w in naive.some_indices(case.shape):
        total = sum(
            int(weight_h[h, i]) * int(weight_w[w, j]) * (int(x[n, c, index_h[h, i], index_w[w, j]]) - spec.x.zero_point)
            for i in range(2)
            for j in range(2)
        )
        assert result[n, c, h, w] == naive.finish(naive.scaled(total, factor), spec.epilogue, None)


def test_resize_linear_halfway_is_the_average():
    q = Affine(1.0, 10)
    ends, whole = np.array([[0, 1]], np.int32), np.array([[0, 0]], np.int32)
    half, all_of_it = np.array([[1024, 1024]], np.int32), np.array([[2048, 0]], np.int32)
    x = np.array([[[[20, 40]]]], np.uint8)
    got = pooling.resize_linear(ResizeLinear(q, Epilogue(out=q)), x, whole, all_of_it, ends, half)
    assert got.tolist() == [[[[30]]]]


@pytest.mark.parametrize(
    ("ceil_mode", "count_include_pad"),
    [(False, False), (False, True), (True, False)],  # both: TVM does not count what ceil_mode adds, the spec does
)
@pytest.mark.parametrize(
    ("size", "window", "strides", "padding"),
    [
        ((7, 8), (3, 2), (2, 3), (1, 0, 1, 1)),
        ((5, 6), (2, 2), (3, 3), (0, 1, 1, 0)),
        ((9, 9), (3, 3), (1, 1), (1, 1, 1, 1)),
    ],
)
def test_float_avg_pool_equals_tvm(size, window, strides, padding, ceil_mode, count_include_pad):
    x = np.random.default_rng(0).standard_normal((2, 3, *size), np.float32)
    spec = AvgPool2d(window, strides, padding, (1, 1), ceil_mode, count_include_pad, None, Epilogue())
    var = relax.Var("x", relax.TensorType(x.shape, "float32"))
    call = relax.op.nn.avg_pool2d(var, window, strides, padding, (1, 1), ceil_mode, count_include_pad)
    expected = islands.evaluate(call, (x,))
    got = pooling.avg_pool2d(spec, x)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_window_of_padding_only_sums_to_zero():
    spec = AvgPool2d((1, 1), (2, 2), (1, 1, 1, 1), (1, 1), False, False, None, Epilogue())
    assert pooling.avg_pool2d(spec, np.ones((1, 1, 2, 2), np.float32)).tolist() == [[[[0, 0], [0, 1]]]]


def test_global_average_of_a_large_image_does_not_overflow_in_float32():
    """The sum 255 * 2^17 is no longer exact in float32 steps; the mean is 255 all the same."""
    q = Affine(1.0, 0)
    x = np.full((1, 1, 2**9, 2**8), 255, np.uint8)
    assert pooling.mean(Mean((2, 3), True, q, Epilogue(out=q)), x).tolist() == [[[[255]]]]
