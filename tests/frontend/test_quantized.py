"""Models quantized by ONNX Runtime: the float graph underneath, and a plan that gives its results."""

import numpy as np
import pytest

from qcompile.frontend import import_onnx
from tests.frontend.onnx_models import names, run, run_onnxruntime, weights
from tests.frontend.quantized_models import network, quantize, simulated

STATIC = [
    ("QDQ", False, "QUInt8"),
    ("QDQ", True, "QInt8"),
    ("QOperator", False, "QInt8"),
    ("QOperator", True, "QUInt8"),
]


@pytest.mark.parametrize("kind, per_channel, dtype", STATIC)
def test_static(tmp_path, kind, per_channel, dtype):
    """Applied to the float graph, the imported plan gives ONNX Runtime's result to one step of the output."""
    path = quantize(tmp_path, kind, per_channel, dtype)
    imported = import_onnx(path)
    plan = imported.imported_plan
    feeds = {"x": weights(1, 3, 8, 8, seed=7)}
    expected = run_onnxruntime(path, feeds)[0]
    step = plan.tensors["y"].affine.scale
    assert np.abs(run(simulated(imported), feeds)[0] - expected).max() <= 1.01 * step
    # without its quantization the graph is the float network with other weights, Relu and Clip included
    assert np.abs(run(imported, feeds)[0] - run_onnxruntime(network(), feeds)[0]).max() < 0.05
    assert {t.kind for t in plan.tensors.values()} == {"imported"}
    activations = {n: t for n, t in plan.tensors.items() if not n.endswith((".weight", ".bias"))}
    assert {t.dtype for t in activations.values()} == {{"QUInt8": "uint8", "QInt8": "int8"}[dtype]}
    assert activations.keys() <= {*names(imported), "x"}
    axes = {
        n.partition("_quantized")[0].partition(".")[0].partition("~")[0]: (t.dtype, t.axis)
        for n, t in plan.tensors.items()
        if n.endswith(".weight")
    }
    conv, dense = ("int8", 0 if per_channel else None), ("int8", 1 if per_channel else None)
    first = "r1" if kind == "QDQ" else "c1"
    assert axes == {first: conv, "c2": conv, "ge": dense, "mm": dense}
    assert plan.integer_inputs == plan.integer_outputs == ()


@pytest.mark.parametrize("per_channel, dtype", [(False, "QUInt8"), (True, "QInt8"), (True, "QUInt8")])
def test_dynamic(tmp_path, per_channel, dtype):
    """Float products of dequantized weights; ONNX Runtime's own result differs by its activations' rounding."""
    path = quantize(tmp_path, "dynamic", per_channel, dtype)
    imported = import_onnx(path)
    feeds = {"x": weights(1, 3, 8, 8, seed=7)}
    assert np.abs(run(imported, feeds)[0] - run_onnxruntime(path, feeds)[0]).max() < 0.02
    entries = imported.imported_plan.tensors
    assert len(entries) == 4 and all(n.endswith(".weight") and t.dtype == "int8" for n, t in entries.items())
    assert all(n.removesuffix(".weight") in names(imported) for n in entries)
    assert len(entries["mm.weight"].scale) == (6 if per_channel else 1)
