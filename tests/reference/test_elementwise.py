"""Element-wise layers: against scalar definitions and real numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.ops import Affine, Binary, ChannelShuffle, Concat, Epilogue, Lookup, Softmax
from qcompile.reference import arithmetic, elementwise
from tests.properties import cases
from tests.reference import naive
from tests.reference.float_form import assert_within_half_a_step, run

BOTH = ("uint8", "int8")


def binary_v(spec: Binary, a: int, b: int) -> np.float32:
    """The three formulas of ``ops.Binary`` for one pair of codes."""
    unit = spec.epilogue.out.scale if spec.epilogue.out else 1
    a, b = a - spec.a.zero_point, b - spec.b.zero_point
    f32 = np.float32
    if spec.kind == "multiply":
        return f32(f32(a * b) * f32(spec.a.scale * spec.b.scale / unit))
    left, right = f32(f32(a) * f32(spec.a.scale / unit)), f32(f32(b) * f32(spec.b.scale / unit))
    return f32(left + right) if spec.kind == "add" else f32(left - right)


@settings(max_examples=60, deadline=None)
@given(cases.binary_case(BOTH))
def test_binary_equals_the_scalar_definition(case):
    result = run(case)
    assert (result.shape, result.dtype) == (case.shape, case.dtype)
    a, b = (np.broadcast_to(x, case.shape) for x in case.args)
    for index in naive.some_indices(case.shape):
        v = binary_v(case.spec, int(a[index]), int(b[index]))
        assert result[index] == naive.finish(v, case.spec.epilogue, None)


@settings(max_examples=40, deadline=None)
@given(cases.binary_case(BOTH))
def test_binary_is_within_half_a_step_of_real_numbers(case):
    assert_within_half_a_step(case)


@settings(max_examples=20, deadline=None)
@given(cases.binary_case(integer=False))
def test_float_binary(case):
    a, b = case.args
    expected = {"add": a + b, "subtract": a - b, "multiply": a * b}[case.spec.kind]
    clip = case.spec.epilogue.clip
    assert np.array_equal(run(case), np.clip(expected, *np.float32(clip)) if clip else expected)


def test_binary_of_codes_and_floats_is_refused():
    spec = Binary("add", Affine(1.0, 0), None, Epilogue())
    with pytest.raises(ValueError, match="add of codes and float32"):
        elementwise.binary(spec, np.zeros(1, np.uint8), np.zeros(1, np.float32))


@pytest.mark.parametrize("dtype", BOTH)
def test_lookup_starts_at_the_least_code(dtype):
    q = Affine(1.0, 0, dtype)
    x = np.array([q.qmin, q.qmin + 1, q.qmax]).astype(dtype)
    table = np.arange(256, dtype=np.float32) * 10
    assert elementwise.lookup(Lookup("f", q, None), x, table).tolist() == [0, 10, 2550]


@settings(max_examples=40, deadline=None)
@given(cases.concat_case(BOTH))
def test_concat_requantizes_each_input_on_its_own(case):
    result = run(case)
    assert (result.shape, result.dtype) == (case.shape, case.dtype)
    start = 0
    for x, q in zip(case.args, case.spec.inputs, strict=True):
        part = np.take(result, range(start, start + x.shape[case.spec.axis]), axis=case.spec.axis)
        assert np.array_equal(part, arithmetic.requantize(x, q, case.spec.out))
        start += x.shape[case.spec.axis]


def test_concat_of_equal_codes_copies():
    q = Affine(0.1, 9)
    x = np.arange(256, dtype=np.uint8)
    assert np.array_equal(elementwise.concat(Concat(0, (q, q), q), x, x), np.concatenate([x, x]))


@settings(max_examples=40, deadline=None)
@given(cases.requantize_case(BOTH))
def test_requantize_equals_the_scalar_definition(case):
    x, out = case.spec.x, case.spec.out
    result = run(case)
    for index in naive.some_indices(case.shape):
        v = np.float32(int(case.args[0][index]) - x.zero_point) * np.float32(x.scale / out.scale)
        assert result[index] == naive.finish(v, Epilogue(out=out), None)


@settings(max_examples=40, deadline=None)
@given(cases.softmax_case(BOTH))
def test_softmax_is_near_real_numbers(case):
    """Floats to 1e-5; codes to half a step and a little."""
    spec, x = case.spec, arithmetic.dequantize(case.args[0], case.spec.x).astype(np.float64)
    e = np.exp(x - x.max(axis=spec.axis, keepdims=True))
    real = e / e.sum(axis=spec.axis, keepdims=True)
    if spec.epilogue.clip:
        real = np.clip(real, *spec.epilogue.clip)
    if spec.epilogue.out is None:
        np.testing.assert_allclose(run(case), real, atol=1e-5)
        return
    out = spec.epilogue.out
    low, high = ((bound - out.zero_point) * out.scale for bound in (out.qmin, out.qmax))
    got = arithmetic.dequantize(run(case), out)
    assert np.abs(got - np.clip(real, low, high)).max() <= 0.5 * out.scale + 1e-5


@settings(max_examples=40, deadline=None)
@given(cases.softmax_case(BOTH))
def test_softmax_equals_the_scalar_definition(case):
    """One division an axis, then one product an element, each rounded."""
    spec, (x, table) = case.spec, case.args
    result = run(case)
    assert (result.shape, result.dtype) == (case.shape, case.dtype)
    f32 = np.float32
    unit = spec.epilogue.out.scale if spec.epilogue.out else 1
    for index in naive.some_indices(case.shape):
        axis = spec.axis % x.ndim
        line = [int(code) for code in x[(*index[:axis], slice(None), *index[axis + 1 :])]]
        total = sum(int(table[max(line) - code]) for code in line)
        factor = f32(f32(1 / unit) / f32(total))
        v = f32(f32(table[max(line) - int(x[index])]) * factor)
        assert result[index] == naive.finish(v, spec.epilogue, None)


def test_softmax_of_equal_codes_with_the_longest_axis():
    x = np.full((1, 511), 3, np.uint8)
    q = Affine(0.1, 0)
    got = elementwise.softmax(Softmax(1, q, Epilogue()), x, elementwise.exponentials(q))
    np.testing.assert_allclose(got, 1 / 511, rtol=1e-6)
    with pytest.raises(ValueError, match="512 elements"):
        elementwise.softmax(Softmax(1, q, Epilogue()), np.full((1, 512), 3, np.uint8), elementwise.exponentials(q))


@given(st.integers(1, 5), st.integers(1, 5))
def test_channel_shuffle_sends_channels_where_the_spec_says(groups, per_group):
    c = groups * per_group
    x = np.arange(c, dtype=np.uint8).reshape(1, c, 1, 1)
    shuffled = elementwise.channel_shuffle(ChannelShuffle(groups), x).reshape(-1)
    assert shuffled.tolist() == [(i % groups) * per_group + i // groups for i in range(c)]


@given(cases.channel_shuffle_case())
def test_channel_shuffle_back(case):
    x = case.args[0]
    back = replace(case.spec, groups=x.shape[1] // case.spec.groups)
    assert np.array_equal(elementwise.channel_shuffle(back, elementwise.channel_shuffle(case.spec, x)), x)
