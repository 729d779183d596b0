"""The committed example model and its data are what the examples and the README say of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


def test_is_small():
    assert sum(file.stat().st_size for file in DIGITS.iterdir()) < 500_000


def test_float_model_reads_test_digits():
    test = np.load(DIGITS / "test.npz")
    session = ort.InferenceSession(DIGITS / "model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": test["image"]})
    assert np.mean(scores.argmax(1) == test["labels"]) >= 0.97


def test_model_has_what_real_networks_have():
    model = onnx.load(DIGITS / "model.onnx")
    operators = [node.op_type for node in model.graph.node]
    assert {"BatchNormalization", "Add", "GlobalAveragePool", "Gemm"} <= {*operators}
    groups = [a.i for n in model.graph.node for a in n.attribute if n.op_type == "Conv" and a.name == "group"]
    assert max(groups) > 1, "no depthwise convolution"
    assert any(g % 16 for g in groups if g > 1), "only channel counts that fill a vector"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param, "the batch is not dynamic"
    assert all(node.name for node in model.graph.node)


def test_calibration_and_test_digits_are_different_images():
    calibration, test = (np.load(DIGITS / f"{name}.npz")["image"] for name in ("calib", "test"))
    assert calibration.dtype == test.dtype == np.float32 and calibration.shape[1:] == test.shape[1:] == (1, 8, 8)
    seen = {image.tobytes() for image in calibration}
    assert not any(image.tobytes() in seen for image in test)


def test_sample_is_one_image_of_the_models_input():
    assert np.load(DIGITS / "sample.npz")["image"].shape == (1, 1, 8, 8)
