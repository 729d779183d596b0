"""What ``relax.quantize`` and ``relax.dequantize`` do, and that the oracle does the same."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
import tvm
from tvm import relax

from qcompile.ops import Affine
from qcompile.reference import arithmetic, interpreter, islands

TIES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)


def quantize_call(x: np.ndarray, scale, zero_point, dtype: str, axis: int = -1) -> relax.Call:
    var = relax.Var("x", relax.TensorType(x.shape, "float32"))
    scale = relax.const(np.asarray(scale, np.float32))
    return relax.op.quantize(var, scale, relax.const(np.asarray(zero_point, dtype)), axis, dtype)


def dequantize_call(x: np.ndarray, scale, zero_point, axis: int = -1) -> relax.Call:
    var = relax.Var("x", relax.TensorType(x.shape, str(x.dtype)))
    scale = relax.const(np.asarray(scale, np.float32))
    return relax.op.dequantize(var, scale, relax.const(np.asarray(zero_point, x.dtype)), axis, "float32")


def ours(call: relax.Call, x: np.ndarray) -> np.ndarray:
    return interpreter.OPERATORS[call.op.name](call, x, *(arg.value.numpy() for arg in call.args[1:]))


def tvms(call: relax.Call, x: np.ndarray) -> np.ndarray:
    return islands.evaluate(call, (x, *(arg.value.numpy() for arg in call.args[1:])))


def test_relax_quantize_rounds_ties_to_even():
    """TVM's documentation says away from zero."""
    call = quantize_call(TIES, 1, 100, "uint8")
    assert tvms(call, TIES).tolist() == ours(call, TIES).tolist() == [98, 98, 100, 100, 102, 102]


@pytest.mark.parametrize(
    ("dtype", "zero_point"), [("uint8", 0), ("uint8", 131), ("int8", 0), ("int8", -128), ("int16", 5)]
)
@pytest.mark.parametrize("scale", [0.0235, 1.0, 1e-3])
def test_quantize_equals_tvm(dtype, zero_point, scale):
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32) * 3
    x = np.concatenate([x, TIES, np.float32([inf, -inf, 3e38, -3e38, 1e10])])
    call = quantize_call(x, scale, zero_point, dtype)
    got = ours(call, x)
    assert got.dtype == dtype
    assert np.array_equal(got, tvms(call, x))


def test_quantize_along_an_axis_equals_tvm():
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    call = quantize_call(x, [0.01, 0.1, 1], [0, 3, -5], "int8", axis=1)
    assert np.array_equal(ours(call, x), tvms(call, x))


def test_nan_quantizes_to_the_zero_point():
    x = np.array([nan], np.float32)
    assert ours(quantize_call(x, 0.1, 77, "uint8"), x).tolist() == [77]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_quantize_is_arithmetic_quantize(dtype):
    x = np.linspace(-30, 30, 4001, dtype=np.float32)
    call = quantize_call(x, 0.0517, 12, dtype)
    assert np.array_equal(ours(call, x), arithmetic.quantize(x, Affine(float(np.float32(0.0517)), 12, dtype)))


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 131), ("int8", -128), ("int32", 0)])
def test_dequantize_equals_tvm(dtype, zero_point):
    info = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(info.min, info.max, 1000, endpoint=True).astype(dtype)
    call = dequantize_call(x, 0.0517, zero_point)
    got = ours(call, x)
    assert got.dtype == "float32"
    assert np.array_equal(got, tvms(call, x))


def test_dequantize_along_an_axis_equals_tvm():
    x = np.random.default_rng(0).integers(-128, 128, (3, 2, 2)).astype(np.int8)
    call = dequantize_call(x, [0.01, 0.1, 1], [0, 3, -5], axis=0)
    assert np.array_equal(ours(call, x), tvms(call, x))


def test_a_quantize_in_a_module_runs_by_our_rules():
    """TVM's own is not asked: its NaN is another."""
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            scale, zero_point = relax.const(0.5, "float32"), relax.const(9, "uint8")
            q = builder.emit(relax.op.quantize(x, scale, zero_point, -1, "uint8"))
            y = builder.emit_output(relax.op.dequantize(q, scale, zero_point, -1, "float32"))
        builder.emit_func_output(y)
    module: tvm.IRModule = builder.get()
    (result,) = interpreter.run(module, {"x": np.array([nan, 1.2], np.float32)}).values()
    assert result.tolist() == [0.0, 1.0]
