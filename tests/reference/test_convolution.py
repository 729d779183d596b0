"""Convolution, transposed convolution and dense: against scalar loops, real numbers, and TVM's float operators."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from tvm import relax

from qcompile.ops import Affine, Conv2d, Dense, Epilogue
from qcompile.reference import convolution, islands
from tests.properties import cases
from tests.properties.cases import Case
from tests.reference import naive
from tests.reference.float_form import assert_within_half_a_step, run

BOTH = ("uint8", "int8")
LAYERS = cases.conv2d_case(BOTH) | cases.conv1d_case(BOTH) | cases.conv_transpose2d_case(BOTH) | cases.dense_case(BOTH)


def residual_at(case: Case, index: tuple[int, ...]) -> np.generic | None:
    epilogue = case.spec.epilogue
    return case.args[-1][index] if epilogue.residual or epilogue.residual_is_float else None


def assert_equals_loops(case: Case, result: np.ndarray, sums, channel: int) -> None:
    x, weight, bias, multiplier = case.args[:4]
    for index in naive.some_indices(case.shape):
        o = index[channel]
        total = sums(case.spec, x, weight, index) + int(bias[o])
        v = naive.scaled(total, multiplier[o])
        assert result[index] == naive.finish(v, case.spec.epilogue, residual_at(case, index)), index


@settings(max_examples=60, deadline=None)
@given(cases.conv2d_case(BOTH) | cases.conv1d_case(BOTH))
def test_conv2d_equals_loops(case):
    result = run(case)
    assert (result.shape, result.dtype) == (case.shape, case.dtype)
    assert_equals_loops(case, result, naive.conv2d_sum, channel=1)


@settings(max_examples=40, deadline=None)
@given(cases.conv_transpose2d_case(BOTH))
def test_conv_transpose2d_equals_loops(case):
    result = run(case)
    assert (result.shape, result.dtype) == (case.shape, case.dtype)
    assert_equals_loops(case, result, naive.conv_transpose2d_sum, channel=1)


@settings(max_examples=40, deadline=None)
@given(cases.dense_case(BOTH))
def test_dense_equals_loops(case):
    def sums(spec, x, weight, index):
        pairs = zip(x[index[:-1]], weight[index[-1]], strict=True)
        return sum((int(a) - spec.x.zero_point) * int(b) for a, b in pairs)

    result = run(case)
    assert (result.shape, result.dtype) == (case.shape, case.dtype)
    assert_equals_loops(case, result, sums, channel=-1)


@settings(max_examples=100, deadline=None)
@given(LAYERS)
def test_layers_are_within_half_a_step_of_real_numbers(case):
    assert_within_half_a_step(case)


def test_terms_that_cancel_are_within_half_a_step():
    """2540 - 4000.5 + 1968.5 - 504: in float32 the result is as inexact as they are."""
    x = np.array([168, 65, 159], np.uint8).reshape(1, 1, 1, 3)
    x_codes, epilogue = Affine(0.023499999195337296, 128, "uint8"), Epilogue(clip=(0.0, 6.0))
    spec = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), 1, x=x_codes, epilogue=epilogue, weights="int8")
    weight, bias = np.full((1, 1, 1, 3), 127, np.int8), np.array([-1008], np.int32)
    case = Case(spec, (x, weight, bias, np.array([0.5], np.float32)), (1, 1, 1, 1), "float32", (0,))
    assert run(case).item() == 4.0
    assert_within_half_a_step(case)


def tvm_sum(case: Case) -> np.ndarray:
    """The layer's products summed by TVM's float operator."""
    spec = case.spec
    x, weight = (relax.Var("v", relax.TensorType(a.shape, "float32")) for a in case.args[:2])
    if spec.op == "conv2d":
        call = relax.op.nn.conv2d(x, weight, spec.strides, spec.padding, spec.dilation, spec.groups)
    else:
        call = relax.op.nn.conv2d_transpose(
            x, weight, spec.strides, spec.padding, spec.output_padding, spec.dilation, spec.groups
        )
    return islands.evaluate(call, case.args[:2])


@pytest.mark.parametrize("strategy", [cases.conv2d_case, cases.conv_transpose2d_case], ids=["conv2d", "transpose"])
def test_float_layers_equal_tvm(strategy):
    @settings(max_examples=12, deadline=None)
    @given(strategy(integer=False))
    def check(case):
        v = tvm_sum(case) + case.args[2].reshape(1, -1, 1, 1)
        if case.spec.epilogue.residual_is_float:
            v = v + case.args[-1]
        if case.spec.epilogue.clip:
            v = np.clip(v, *case.spec.epilogue.clip)
        np.testing.assert_allclose(run(case), v, rtol=1e-4, atol=1e-4)

    check()


@settings(max_examples=20, deadline=None)
@given(cases.dense_case(integer=False))
def test_float_dense(case):
    x, weight, bias = case.args[:3]
    v = np.einsum("...k,nk->...n", x.astype(np.float64), weight) + bias
    if case.spec.epilogue.residual_is_float:
        v = v + case.args[3]
    if case.spec.epilogue.clip:
        v = np.clip(v, *case.spec.epilogue.clip)
    np.testing.assert_allclose(run(case), v, rtol=1e-5, atol=1e-5)


def test_padding_counts_as_the_zero_point():
    """A picture of zero points is a picture of zeros: its border must not show."""
    spec = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, Affine(1.0, 7), Epilogue(out=Affine(1.0, 100)))
    weight = np.full((1, 1, 3, 3), 9, np.int8)
    result = convolution.conv2d(
        spec, np.full((1, 1, 3, 3), 7, np.uint8), weight, np.array([2], np.int32), np.ones(1, np.float32)
    )
    assert np.array_equal(result, np.full((1, 1, 3, 3), 102))


def test_sums_beyond_float32_stay_exact():
    """2^24 + 1 is no float32; the sum must be rounded as a whole, not term by term."""
    spec = Dense(Affine(1.0, 0), Epilogue())
    x = np.ones((1, 3), np.uint8)
    got = convolution.dense(spec, x, np.ones((1, 3), np.int8), np.array([2**24], np.int32), np.ones(1, np.float32))
    assert got[0, 0] == np.float32(2**24 + 3) == 2**24 + 4


def test_a_sum_beyond_int32_is_an_error():
    spec = Dense(Affine(1.0, 0), Epilogue())
    bias = np.array([2**31 - 1], np.int32)
    with pytest.raises(OverflowError, match="2147483648"):
        convolution.dense(spec, np.ones((1, 1), np.uint8), np.ones((1, 1), np.int8), bias, np.ones(1, np.float32))
