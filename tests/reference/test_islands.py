"""Operators that numpy has no function for are computed by TVM."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.frontend import import_onnx
from qcompile.graph import MainBuilder
from qcompile.reference import interpreter, islands
from tests.frontend.onnx_models import model, node, run_onnxruntime, weights

RNN = {"w": weights(1, 2, 2), "r": weights(1, 2, 2, seed=1)}


def module_of(make, *shapes):
    params = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
    builder = MainBuilder(params)
    return builder.module([builder.emit(make(*params), "y")])


def test_layer_norm():
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    gamma, beta = np.full(8, 2, np.float32), np.ones(8, np.float32)
    module = module_of(
        lambda x: relax.op.nn.layer_norm(x, relax.const(gamma), relax.const(beta), axes=[-1], epsilon=1e-5), (2, 8)
    )
    y = interpreter.run(module, {"x0": x})["y"]
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * 2 + 1
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_a_result_of_several_tensors():
    x = np.array([[3, 1, 2]], np.float32)
    values, indices = interpreter.run(module_of(lambda x: relax.op.topk(x, 2), (1, 3)), {"x0": x})["y"]
    assert values.tolist() == [[3, 2]]
    assert indices.tolist() == [[0, 2]]


def test_a_tuple_argument():
    a, b = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
    module = module_of(lambda a, b: relax.op.stack([a, b], 1), (2, 2), (2, 2))
    assert np.array_equal(interpreter.run(module, {"x0": a, "x1": b})["y"], np.stack([a, b], 1))


def test_linear_resize_is_no_movement():
    x = np.array([[[[0, 4], [4, 8]]]], np.float32)
    module = module_of(
        lambda x: relax.op.image.resize2d(
            x, (2, 3), layout="NCHW", method="linear", coordinate_transformation_mode="align_corners"
        ),
        (1, 1, 2, 2),
    )
    np.testing.assert_allclose(interpreter.run(module, {"x0": x})["y"], [[[[0, 2, 4], [4, 6, 8]]]], atol=1e-6)


def test_equal_operators_are_compiled_once():
    x = np.ones((3, 5), np.float32)
    module = module_of(lambda x: relax.op.exp(x), (3, 5))
    interpreter.run(module, {"x0": x})
    before = islands._compiled.cache_info()
    y = interpreter.run(module_of(lambda x: relax.op.exp(x), (3, 5)), {"x0": x * 2})["y"]
    after = islands._compiled.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    np.testing.assert_allclose(y, np.exp(x * 2), rtol=1e-6)


def test_a_kernel_of_the_module():
    proto = model([node("RNN", "x w r", "_ y", hidden_size=2)], {"x": (3, 1, 2)}, constants=RNN)
    x = weights(3, 1, 2)
    y = interpreter.run(import_onnx(proto).module, {"x": x})["y"]
    np.testing.assert_allclose(y, run_onnxruntime(proto, {"x": x})[0], rtol=1e-5)
