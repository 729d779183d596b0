"""Relax operators in numpy: against the same operator compiled by TVM, bit for bit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax
from tvm.ir import TupleType

from qcompile.errors import QCompileError
from qcompile.reference import interpreter, movement

op = relax.op


CODES = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 7)).astype(np.uint8)
FLOATS = np.random.default_rng(0).standard_normal((2, 6, 5, 7), np.float32)

CALLS = {
    "reshape": lambda x: op.reshape(x, (3, -1)),
    "flatten": lambda x: op.flatten(x),
    "expand_dims": lambda x: op.expand_dims(x, [0, 3]),
    "squeeze": lambda x: op.squeeze(op.reshape(x, (1, 420, 1)), [0]),
    "permute_dims": lambda x: op.permute_dims(x, [2, 0, 3, 1]),
    "permute_dims reversed": lambda x: op.permute_dims(x),
    "slice": lambda x: op.strided_slice(x, [1, 3], [1, 2], [5, 7], [2, 3]),
    "slice without strides": lambda x: op.strided_slice(x, [2], [1], [4]),
    "slice from the end": lambda x: op.strided_slice(x, [1, 3], [-3, -100], [-1, 100]),
    "slice backwards": lambda x: op.strided_slice(x, [1, 3], [-1, 100], [-100, 2], [-1, -3]),
    "split in parts": lambda x: op.split(x, 3, 1),
    "split unevenly": lambda x: op.split(x, 2, 3),
    "split at": lambda x: op.split(x, [2, 3], -1),
    "concat": lambda x: op.concat([x, x], 2),
    "take": lambda x: op.take(x, relax.const(np.array([4, 0, 4])), axis=1),
    "take one": lambda x: op.take(x, relax.const(3, "int64"), axis=3),
    "pad": lambda x: op.nn.pad(x, [0, 1, 2, 0, 1, 1, 0, 3], "constant", 9),
    "pad reflect": lambda x: op.nn.pad(x, [0, 0, 0, 0, 1, 2, 3, 0], "reflect"),
    "pad replicate": lambda x: op.nn.pad(x, [0, 0, 0, 0, 1, 2, 3, 0], "replicate"),
    "pad circular": lambda x: op.nn.pad(x, [0, 0, 0, 0, 1, 2, 3, 0], "circular"),
    "max_pool2d": lambda x: op.nn.max_pool2d(x, (3, 2), (2, 1), (1, 0, 0, 1)),
    "max_pool2d ceil": lambda x: op.nn.max_pool2d(x, (2, 3), (3, 2), (0, 1, 1, 1), (1, 1), True),
    "max_pool2d dilated": lambda x: op.nn.max_pool2d(x, (2, 3), (1, 1), (1, 1, 1, 1), (3, 2)),
    "max_pool1d": lambda x: op.nn.max_pool1d(op.reshape(x, (2, 6, 35)), 4, 3, (1, 2), 2, True),
    "astype": lambda x: op.astype(x, "int32"),
}
FLOAT_CALLS = {
    "relu": lambda x: op.nn.relu(x),
    "clip": lambda x: op.clip(x, -0.25, 0.75),
    "add": lambda x: op.add(x, relax.const(np.float32(0.1))),
    "subtract": lambda x: op.subtract(relax.const(np.float32(0.1)), x),
    "multiply": lambda x: op.multiply(x, x),
    "maximum": lambda x: op.maximum(x, op.negative(x)),
    "minimum": lambda x: op.minimum(x, relax.const(np.float32(0.1))),
}


def results(calls, x: np.ndarray) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
    """Results of each call on ``x``, by the oracle and by TVM; all in one module, which compiles faster."""
    var = relax.Var("x", relax.TensorType(x.shape, str(x.dtype)))
    builder = relax.BlockBuilder()
    counts: list[int] = []
    with builder.function("main", [var]):
        with builder.dataflow():
            outputs = []
            for make in calls.values():
                result = builder.emit(make(var))
                parts = len(result.ty.fields) if isinstance(result.ty, TupleType) else 0
                outputs += [builder.emit(relax.TupleGetItem(result, i)) for i in range(parts)] if parts else [result]
                counts.append(max(parts, 1))
            together = builder.emit_output(relax.Tuple(outputs))
        builder.emit_func_output(together)
    module = builder.get()
    got = list(interpreter.run(module, {"x": x}).values())
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    expected = [tensor.numpy() for tensor in machine["main"](tvm.runtime.tensor(x))]
    assert len(got) == len(expected) == sum(counts)
    return _by_name(calls, counts, got), _by_name(calls, counts, expected)


def _by_name(names, counts, arrays):
    rest = iter(arrays)
    return {name: [next(rest) for _ in range(count)] for name, count in zip(names, counts, strict=True)}


def assert_same(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.array_equal(a, b)


@pytest.fixture(scope="module")
def codes_results():
    return results(CALLS, CODES)


@pytest.fixture(scope="module")
def float_results():
    return results({**CALLS, **FLOAT_CALLS}, FLOATS)


@pytest.mark.parametrize("name", CALLS)
def test_codes(name, codes_results):
    got, expected = codes_results
    assert_same(got[name], expected[name])


@pytest.mark.parametrize("name", [*CALLS, *FLOAT_CALLS])
def test_floats(name, float_results):
    got, expected = float_results
    assert_same(got[name], expected[name])


MODES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "")


def test_nearest_resize_equals_tvm():
    """Sizes whose positions are exact in float32; the others may differ where TVM's rounding errors decide a tie."""
    calls = {
        (mode, rounding): lambda x, mode=mode, rounding=rounding: op.image.resize2d(
            x,
            (16, 14),
            layout="NCHW",
            method="nearest_neighbor",
            coordinate_transformation_mode=mode,
            rounding_method=rounding,
        )
        for mode, rounding in product(MODES, ROUNDINGS)
    }
    got, expected = results(calls, np.arange(8 * 7, dtype=np.uint8).reshape(1, 1, 8, 7))
    for name in calls:
        assert_same(got[name], expected[name])


@pytest.mark.parametrize(
    ("size", "out", "mode", "rounding", "index"),
    [
        (2, 4, "asymmetric", "floor", [0, 0, 1, 1]),
        (3, 9, "asymmetric", "floor", [0, 0, 0, 1, 1, 1, 2, 2, 2]),
        (4, 2, "half_pixel", "round_prefer_floor", [0, 2]),  # positions 0.5 and 2.5
        (4, 2, "half_pixel", "round_prefer_ceil", [1, 3]),
        (6, 4, "half_pixel", "round_prefer_floor", [0, 2, 3, 5]),  # 0.25, 1.75, 3.25, 4.75
        (5, 3, "align_corners", "round", [0, 2, 4]),
        (5, 1, "align_corners", "", [0]),
        (3, 1, "pytorch_half_pixel", "floor", [0]),
    ],
)
def test_nearest_index(size, out, mode, rounding, index):
    assert movement.nearest_index(size, out, mode, rounding).tolist() == index


@given(st.integers(1, 40), st.integers(1, 80), st.sampled_from(MODES), st.sampled_from(ROUNDINGS))
def test_nearest_index_is_monotone_and_inside(size, out, mode, rounding):
    index = movement.nearest_index(size, out, mode, rounding)
    assert index.shape == (out,)
    assert (np.diff(index) >= 0).all()
    assert index.min() >= 0
    assert index.max() < size


def test_unknown_resize_modes_are_errors():
    with pytest.raises(QCompileError, match="unknown coordinates 'half_pixle'.*did you mean 'half_pixel'"):
        movement.nearest_index(2, 4, "half_pixle", "floor")
    with pytest.raises(QCompileError, match="unknown rounding 'flor'.*did you mean 'floor'"):
        movement.nearest_index(2, 4, "half_pixel", "flor")


def test_max_pool_of_padding_only_is_the_least_code():
    x = relax.Var("x", relax.TensorType((1, 1, 2, 2), "uint8"))
    call = op.nn.max_pool2d(x, (1, 1), (2, 2), (1, 1, 1, 1))
    assert movement.max_pool(call, np.full((1, 1, 2, 2), 9, np.uint8)).tolist() == [[[[0, 0], [0, 9]]]]
