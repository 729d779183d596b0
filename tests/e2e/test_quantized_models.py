"""Models that ONNX Runtime quantized, built without calibration: all layers in integers, and ONNX Runtime's results."""

from __future__ import annotations

import logging
import platform

import numpy as np
import onnx
import pytest
from onnxruntime import quantization

import qcompile as qc
from qcompile.assign.imported import brings_scales
from qcompile.ops import Affine
from qcompile.reference.arithmetic import quantize
from tests.frontend.onnx_models import model, node, run_onnxruntime, weights
from tests.frontend.quantized_models import Reader
from tests.frontend.quantized_models import quantize as quantize_onnx
from tests.frontend.test_bench_models import BENCH, calibration

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for x86-64")
TYPES = quantization.QuantType
SAMPLES = [{"x": weights(1, 3, 10, 10, seed=i)} for i in range(6)]


def network() -> onnx.ModelProto:
    """conv + relu, depthwise, residual, pooling, a concatenation, two matrix products: (1, 3, 10, 10) -> (1, 5)."""
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2 b2", "c2", pads=[1, 1, 1, 1], group=8),
        node("Add", "c2 r1", "a"),
        node("Relu", "a", "r2"),
        node("MaxPool", "r2", "mp", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", "r2", "ap", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Concat", "mp ap", "cc", axis=1),
        node("Conv", "cc w3 b3", "c3"),
        node("GlobalAveragePool", "c3", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w4 b4", "ge", transB=1),
        node("Relu", "ge", "h"),
        node("MatMul", "h w5", "y"),
    ]
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "b2": (8,), "w3": (12, 16, 1, 1), "b3": (12,)}
    shapes |= {"w4": (10, 12), "b4": (10,), "w5": (10, 5)}
    constants = {name: 0.5 * weights(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    return model(nodes, {"x": (1, 3, 10, 10)}, constants=constants, opset=13)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    logging.disable(logging.WARNING)  # of ONNX Runtime, on models that were not preprocessed
    onnx.save(network(), folder / "float.onnx")
    yield folder
    logging.disable(logging.NOTSET)


VARIANTS = {  # format, activations, weights, per channel, activations symmetric, weights symmetric
    "u8s8": ("QDQ", "QUInt8", "QInt8", False, False, True),
    "u8s8 per channel": ("QDQ", "QUInt8", "QInt8", True, False, True),
    "u8u8, asymmetric weights": ("QDQ", "QUInt8", "QUInt8", False, False, False),
    "s8s8, symmetric": ("QDQ", "QInt8", "QInt8", True, True, True),
    "s8s8": ("QDQ", "QInt8", "QInt8", False, False, True),
    "QOperator u8s8": ("QOperator", "QUInt8", "QInt8", True, False, True),
    "QOperator s8s8": ("QOperator", "QInt8", "QInt8", False, False, True),
    "QOperator u8u8": ("QOperator", "QUInt8", "QUInt8", False, False, False),
}


def static(folder, variant: str) -> str:
    form, activations, kind, per_channel, symmetric, weights_symmetric = VARIANTS[variant]
    path = str(folder / "static.onnx")
    quantization.quantize_static(
        str(folder / "float.onnx"),
        path,
        Reader(SAMPLES),
        quant_format=quantization.QuantFormat[form],
        per_channel=per_channel,
        activation_type=TYPES[activations],
        weight_type=TYPES[kind],
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": weights_symmetric},
    )
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_static(folder, tmp_path, variant):
    """No layer is left in float; results are within a few steps of the output, as far as roundings carry."""
    path = static(folder, variant)
    imported = qc.import_onnx(path)
    artifact = qc.build(imported, qc.plan_imported(imported), "x86", out=tmp_path / "out")
    assert [layer.name for layer in artifact.manifest.layers if layer.format != "int8"] == []
    runner, name = qc.load(artifact.path), artifact.manifest.outputs[0].name
    step = next(e.scale[0] for tensor, e in imported.imported_plan.tensors.items() if tensor in ("y", "y_quantized"))
    errors = [np.abs(runner.run(x)[name] - run_onnxruntime(path, x)[0]).max() / step for x in SAMPLES]
    assert max(errors) <= 4 and np.median(errors) <= 2


def test_a_layer_can_be_left_in_float(folder, tmp_path):
    imported = qc.import_onnx(static(folder, "u8s8"))
    plan = qc.plan_imported(imported, exclude=["r1"])
    artifact = qc.build(imported, plan, "x86", out=tmp_path / "out")
    formats = {layer.name: (layer.format, layer.reason) for layer in artifact.manifest.layers if layer.op == "conv2d"}
    assert sorted(formats.values()) == [("fp32", "excluded as r1"), ("int8", ""), ("int8", "")]


@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
def test_dynamic(folder, tmp_path, kind):
    """Scales of weights alone: activations are calibrated, like those of a float model."""
    path = str(folder / "dynamic.onnx")
    quantization.quantize_dynamic(folder / "float.onnx", path, per_channel=True, weight_type=TYPES[kind])
    imported = qc.import_onnx(path)
    assert not brings_scales(imported)
    with pytest.raises(qc.QCompileError, match=r"scales of weights only; calibrate it, and use plan_uniform"):
        qc.plan_imported(imported)
    data = {"x": np.concatenate([x["x"] for x in SAMPLES])}
    plan = qc.plan_uniform(imported, qc.calibrate(imported, data), "int8")
    artifact = qc.build(imported, plan, "x86", out=tmp_path / "out")
    assert {layer.format for layer in artifact.manifest.layers} == {"int8"}
    runner = qc.load(artifact.path)
    for x in SAMPLES:
        expected = run_onnxruntime(path, x)[0]
        assert np.abs(runner.run(x)["y"] - expected).max() <= 0.06 * np.abs(expected).max()


QUANTIZATIONS = {"s": np.float32(0.02), "t": np.float32(0.05), "ws": np.float32(0.01)}


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_codes_in_and_out(tmp_path, dtype, precision):
    """A model whose input and output are codes keeps them so, and computes ONNX Runtime's."""
    zero = np.array(128 if dtype == np.uint8 else -3, dtype)
    codes = np.random.default_rng(0).integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)
    nodes = [
        node("DequantizeLinear", "x s z", "xr"),
        node("DequantizeLinear", "w ws wz", "wr"),
        node("Conv", "xr wr", "c", pads=[1, 1, 1, 1]),
        node("QuantizeLinear", "c t z", "y"),
    ]
    constants = {**QUANTIZATIONS, "w": codes, "wz": np.int8(0), "z": zero}
    proto = model(nodes, {"x": (1, 3, 9, 9)}, constants=constants, dtypes={"x": dtype, "y": dtype})
    imported = qc.import_onnx(proto)
    plan = qc.plan_imported(imported) if precision == "int8" else qc.plan_uniform(imported, None, "fp32")
    artifact = qc.build(imported, plan, "x86", out=tmp_path / "out")
    (given,), (returned,) = artifact.manifest.inputs, artifact.manifest.outputs
    assert (given.dtype, returned.dtype) == (dtype.__name__, dtype.__name__)
    assert given.quantization == Affine(float(np.float32(0.02)), int(zero), dtype.__name__)
    assert returned.quantization == Affine(float(np.float32(0.05)), int(zero), dtype.__name__)
    info = np.iinfo(dtype)
    x = np.random.default_rng(1).integers(info.min, info.max + 1, (1, 3, 9, 9)).astype(dtype)
    actual, expected = qc.load(artifact.path).run({"x": x})["y"], run_onnxruntime(proto, {"x": x})[0]
    assert actual.dtype == expected.dtype
    steps = np.abs(actual.astype(int) - expected)
    assert steps.max() <= 1 and np.mean(steps == 0) > 0.99


def test_float_model_with_codes_in_and_out(folder, tmp_path):
    """What the manifest says of its codes makes the same model of them."""
    imported = qc.import_onnx(folder / "float.onnx")
    stats = qc.calibrate(imported, {"x": np.concatenate([x["x"] for x in SAMPLES])})
    plans = [
        qc.plan_uniform(imported, stats, integer_inputs=i, integer_outputs=o) for i, o in ((["x"], ["y"]), ((), ()))
    ]
    coded, plain = (qc.build(imported, plan, "x86", out=tmp_path / f"{i}") for i, plan in enumerate(plans))
    (given,), (returned,) = coded.manifest.inputs, coded.manifest.outputs
    assert (given.dtype, returned.dtype) == ("uint8", "uint8") and plain.manifest.inputs[0].quantization is None
    codes = qc.load(coded.path).run({"x": quantize(SAMPLES[0]["x"], given.quantization)})["y"]
    real = qc.load(plain.path).run(SAMPLES[0])["y"]
    np.testing.assert_array_equal(codes, quantize(real, returned.quantization))


@pytest.mark.bench
@pytest.mark.parametrize("name", ["kws_dscnn", "ic_resnet8", "sww_dscnn1d", "ad_fc_ae", "vww_mnv1"])
@pytest.mark.parametrize("kind", ["QDQ QUInt8", "QDQ QInt8", "QOperator QUInt8"])
def test_real_models(tmp_path, name, kind):
    """Their outputs are as close to ONNX Runtime's integers as those are to the float model."""
    samples = calibration(name, 8)
    form, dtype = kind.split()
    path = quantize_onnx(tmp_path, form, True, dtype, BENCH / name / "model.onnx", samples[:4])
    imported = qc.import_onnx(path)
    artifact = qc.build(imported, qc.plan_imported(imported), "x86", out=tmp_path / "out")
    left = [layer for layer in artifact.manifest.layers if layer.macs and layer.format != "int8"]
    assert not left
    runner, output = qc.load(artifact.path), artifact.manifest.outputs[0].name
    ours = np.stack([runner.run(x)[output] for x in samples])
    theirs = np.stack([run_onnxruntime(path, x)[0] for x in samples])
    real = np.stack([run_onnxruntime(str(BENCH / name / "model.onnx"), x)[0] for x in samples])
    assert np.linalg.norm(ours - theirs) <= 1.2 * np.linalg.norm(theirs - real)
    assert np.linalg.norm(ours - real) <= 1.2 * np.linalg.norm(theirs - real)
