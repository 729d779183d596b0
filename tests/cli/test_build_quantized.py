"""``qcompile build`` of models that are quantized already, and of codes at both ends."""

from __future__ import annotations

import json
import logging
import platform

import onnx
import pytest
from onnxruntime import quantization

import qcompile as qc
from tests.frontend.onnx_models import model, node, weights
from tests.frontend.quantized_models import Reader

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for x86-64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """float.onnx, static.onnx (QDQ), dynamic.onnx."""
    folder = tmp_path_factory.mktemp("model")
    nodes = [node("Conv", "x w", "c", "conv"), node("Relu", "c", "r"), node("Conv", "r v", "y", "last")]
    constants = {"w": weights(8, 3, 3, 3), "v": weights(4, 8, 1, 1)}
    onnx.save(model(nodes, {"x": (1, 3, 8, 8)}, constants=constants, opset=13), folder / "float.onnx")
    logging.disable(logging.WARNING)  # of ONNX Runtime
    samples = [{"x": weights(1, 3, 8, 8, seed=i)} for i in range(4)]
    quantization.quantize_static(folder / "float.onnx", folder / "static.onnx", Reader(samples))
    quantization.quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx")
    logging.disable(logging.NOTSET)
    return folder


@pytest.fixture
def build(cli, folder, tmp_path):
    def call(name: str, *options: str) -> tuple[dict, str, qc.Manifest]:
        out = tmp_path / "out"
        code, text, remarks = cli("build", folder / name, "-o", out, "--json", *options)
        assert code == 0
        return json.loads(text), remarks, qc.load(out).manifest

    return call


def test_scales_of_the_model_are_used_without_calibration(build):
    summary, remarks, _ = build("static.onnx")
    assert "calibrate" not in summary["seconds"] and remarks == ""
    assert summary["float"] == {}


def test_scales_of_weights_alone_need_calibration(build):
    summary, remarks, _ = build("dynamic.onnx")
    assert "calibrate" in summary["seconds"] and "WARNING: no calib" in remarks
    assert summary["float"] == {}


def test_excluded_nodes_of_a_quantized_model(build):
    summary, _, _ = build("static.onnx", "--exclude-nodes", "last")
    assert list(summary["float"].values()) == ["excluded as last"]


@pytest.mark.parametrize("name, dtype", [("float.onnx", "uint8"), ("static.onnx", "int8")])
def test_integer_io(build, name, dtype):
    _, _, manifest = build(name, "--integer-io")
    (given,), (returned,) = manifest.inputs, manifest.outputs
    assert (given.name, given.dtype, given.quantization.dtype) == ("x", dtype, dtype)
    assert (returned.name, returned.dtype) == ("y", dtype) and returned.quantization.scale > 0
