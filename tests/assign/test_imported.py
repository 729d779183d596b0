from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from qcompile.assign.imported import plan_imported
from qcompile.errors import QCompileError
from qcompile.frontend.onnx_import import import_onnx
from qcompile.passes.integer_form import integer_form
from qcompile.passes.pipeline import run_passes, tidy_passes
from qcompile.reference.interpreter import run
from tests.passes.quantized_modules import kinds

RNG = np.random.default_rng(0)


def small_cnn() -> onnx.ModelProto:
    """conv + relu, conv + residual + relu, global average pool, fully connected."""
    weights = {
        "w1": RNG.uniform(-1, 1, (8, 3, 3, 3)),
        "b1": RNG.uniform(-1, 1, 8),
        "w2": RNG.uniform(-1, 1, (8, 8, 3, 3)) / 4,
        "b2": RNG.uniform(-1, 1, 8),
        "w3": RNG.uniform(-1, 1, (8, 5)),
        "b3": RNG.uniform(-1, 1, 5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["s"], "sum"),
        helper.make_node("Relu", ["s"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "fc"),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Reader(CalibrationDataReader):
    def __init__(self):
        self.samples = iter([{"x": RNG.uniform(-1, 1, (1, 3, 8, 8)).astype("float32")} for _ in range(16)])

    def get_next(self):
        return next(self.samples, None)


@pytest.fixture(scope="module", params=["QDQ per channel", "QOperator", "QDQ int8"])
def quantized(request, tmp_path_factory):
    """A model that ONNX Runtime quantized."""
    folder = tmp_path_factory.mktemp("model")
    onnx.save(small_cnn(), folder / "float.onnx")
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Reader(),
        quant_format=QuantFormat.QOperator if request.param == "QOperator" else QuantFormat.QDQ,
        per_channel="per channel" in request.param,
        activation_type=QuantType.QInt8 if "int8" in request.param else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return folder / "int8.onnx"


def tidied(path):
    from dataclasses import replace

    model = import_onnx(path)
    return replace(model, module=run_passes(model.module, tidy_passes()))


def test_scales_are_kept_and_every_layer_is_integer(quantized):
    model = tidied(quantized)
    plan = plan_imported(model)
    assert plan.tensors["x"].affine == model.imported_plan.tensors["x"].affine
    assert plan.tensors["x"].kind == "imported"
    weight = next(name for name in plan.tensors if name.endswith(".weight"))
    assert plan.tensors[weight].kind == "imported"
    integer = run_passes(model.module, integer_form(plan, model.layers))
    assert [kind for kind in kinds(integer) if kind in ("CONV2D", "MEAN", "DENSE")] == [
        "CONV2D",
        "CONV2D",
        "MEAN",
        "DENSE",
    ]
    assert "conv2d" not in kinds(integer) and "matmul" not in kinds(integer)


def test_results_agree_with_onnx_runtime(quantized):
    model = tidied(quantized)
    integer = run_passes(model.module, integer_form(plan_imported(model), model.layers))
    session = ort.InferenceSession(quantized, providers=["CPUExecutionProvider"])
    for seed in range(100, 103):
        x = np.random.default_rng(seed).uniform(-1, 1, (1, 3, 8, 8)).astype("float32")
        expected = session.run(None, {"x": x})[0]
        actual = next(iter(run(integer, {"x": x}).values()))
        assert np.abs(actual - expected).max() < 0.1 * np.abs(expected).max()


def test_a_float_model_has_no_plan():
    with pytest.raises(QCompileError, match="not a pre-quantized model"):
        plan_imported(import_onnx(small_cnn()))
