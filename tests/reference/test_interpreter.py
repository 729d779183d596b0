"""Whole modules: names, several outputs, sharing, errors that name the layer, random graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from tvm import relax
from tvm.ir import IRModule

from qcompile import graph, ops
from qcompile.errors import QCompileError
from qcompile.graph import MainBuilder
from qcompile.ops import Affine, Dense, Epilogue, Requantize
from qcompile.reference import interpreter
from tests.properties import cases, graphs
from tests.properties.graphs import composite

Q = Affine(1.0, 0)
UINT8 = relax.TensorType((2,), "uint8")
INT8_MATRIX, INT32, FLOAT32 = (
    relax.TensorType(s, d) for s, d in (((2, 2), "int8"), ((2,), "int32"), ((2,), "float32"))
)


def doubled_and_back() -> IRModule:
    """x -> half steps "a/1:0" -> whole steps "b"; outputs b, x and, again, a/1:0."""
    x = relax.Var("x", UINT8)
    builder = MainBuilder([x])
    half = Affine(0.5, 0)
    a = builder.call(composite(Requantize(Q, half), [UINT8], UINT8), [x], "a/1:0", "requantize")
    b = builder.call(composite(Requantize(half, Q), [UINT8], UINT8), [a], "b", "requantize")
    return builder.module([b, x, a])


def test_outputs_by_name_in_order():
    result = interpreter.run(doubled_and_back(), {"x": np.array([3, 200], np.uint8)})
    assert {name: value.tolist() for name, value in result.items()} == {
        "b": [3, 128],  # 200 in half steps saturates at 255, half of which is the tie 127.5
        "x": [3, 200],
        "a/1:0": [6, 255],
    }
    assert list(result) == ["b", "x", "a/1:0"]


def test_capture_returns_every_variable_in_order():
    result = interpreter.run(doubled_and_back(), {"x": np.array([3, 200], np.uint8)}, capture=True)
    assert list(result) == ["x", "a/1:0", "b"]


def test_a_constant_as_output():
    x = relax.Var("x", UINT8)
    result = interpreter.run(MainBuilder([x]).module([x, relax.const(np.float32(3))]), {"x": np.zeros(2, np.uint8)})
    assert result["output1"] == 3


def test_split_has_a_tuple_of_arrays():
    x = relax.Var("x", UINT8)
    builder = MainBuilder([x])
    parts = builder.emit(relax.op.split(x, 2, 0), "parts")
    second = builder.emit(relax.TupleGetItem(parts, 1), "second")
    result = interpreter.run(builder.module([second]), {"x": np.array([1, 2], np.uint8)}, capture=True)
    assert [part.tolist() for part in result["parts"]] == [[1], [2]]
    assert result["second"].tolist() == [2]


def dense_module(bias: int) -> IRModule:
    x = relax.Var("x", UINT8)
    builder = MainBuilder([x])
    spec = Dense(Q, Epilogue())
    function = composite(spec, [UINT8, INT8_MATRIX, INT32, FLOAT32], FLOAT32, "fc/MatMul")
    constants = (np.ones((2, 2), np.int8), np.full(2, bias, np.int32), np.ones(2, np.float32))
    return builder.module([builder.call(function, [x, *map(relax.const, constants)], "y", "dense")])


def test_overflow_names_the_layer():
    module = dense_module(bias=2**31 - 2)
    assert interpreter.run(module, {"x": np.array([1, 0], np.uint8)})["y"].tolist() == [2.0**31] * 2
    with pytest.raises(QCompileError) as error:
        interpreter.run(module, {"x": np.array([1, 1], np.uint8)})
    assert str(error.value) == (
        "fc/MatMul: a sum of products, 2147483648, does not fit the int32 accumulator; "
        "quantize its weights with a larger scale, or keep the layer in float"
    )


def test_unknown_spec_names_the_layer_and_offers_a_name():
    x = relax.Var("x", UINT8)
    builder = MainBuilder([x])
    function = composite(Requantize(Q, Q), [UINT8], UINT8, "node7").with_attr(ops.ATTR_SPEC, '{"op": "requantise"}')
    module = builder.module([builder.call(function, [x], "y", "requantize")])
    with pytest.raises(
        QCompileError, match="^node7: the oracle knows no operator 'requantise'; did you mean 'requantize'"
    ):
        interpreter.run(module, {"x": np.zeros(2, np.uint8)})


def test_a_function_without_spec_is_an_error():
    x = relax.Var("x", UINT8)
    builder = MainBuilder([x])
    function = composite(Requantize(Q, Q), [UINT8], UINT8).without_attr(ops.ATTR_SPEC)
    module = builder.module([builder.call(function, [x], "y", "helper")])
    with pytest.raises(QCompileError, match="^helper_0: a function without a spec"):
        interpreter.run(module, {"x": np.zeros(2, np.uint8)})


def test_a_result_of_another_type_than_declared_is_an_error():
    x = relax.Var("x", UINT8)
    builder = MainBuilder([x])
    function = composite(Requantize(Q, Affine(1.0, 0, "int8")), [UINT8], UINT8, "node7")
    module = builder.module([builder.call(function, [x], "y", "requantize")])
    with pytest.raises(QCompileError, match=r"^node7: requantize computes int8\(2,\), its function declares uint8"):
        interpreter.run(module, {"x": np.zeros(2, np.uint8)})


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "x: no value given for this input; give uint8(2,)"),
        ({"x": np.zeros(3, np.uint8)}, "x: the value given is uint8(3,); give uint8(2,)"),
        ({"x": np.zeros(2, np.float32)}, "x: the value given is float32(2,); give uint8(2,)"),
        ({"x": np.zeros(2, np.uint8), "X": 0}, "X: not an input of the model; (one of: x)"),
    ],
)
def test_feeds_that_do_not_fit(feeds, message):
    with pytest.raises(QCompileError) as error:
        interpreter.run(doubled_and_back(), feeds)
    assert str(error.value) == message


@settings(max_examples=40, deadline=None)
@given(cases.any_case(("uint8", "int8")))
def test_one_layer_in_a_module_is_the_function_alone(case):
    drawn = graphs.module_of(case)
    got = interpreter.run(drawn.module, drawn.feeds)["y"]
    assert np.array_equal(got, interpreter.COMPOSITES[type(case.spec)](case.spec, *case.args), equal_nan=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs.integer_graphs(dtypes=("uint8", "int8")))
def test_random_graphs(drawn):
    """Each is well formed, runs twice to the same bits, and gives what its types declare."""
    relax.analysis.well_formed(drawn.module)
    first, second = (interpreter.run(drawn.module, drawn.feeds) for _ in range(2))
    outputs = graph.read(drawn.module).outputs
    assert list(first) == [out.name for out in outputs]
    for out in outputs:
        assert first[out.name].shape == tuple(int(extent) for extent in out.ty.shape)
        assert first[out.name].dtype == str(out.ty.dtype)
        assert np.array_equal(first[out.name], second[out.name], equal_nan=True)
