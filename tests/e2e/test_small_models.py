"""Little models with something odd about them: built in float32 and int8, compared with ONNX Runtime."""

from __future__ import annotations

import platform

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.model import TensorSpec
from qcompile.plan import QuantPlan
from tests.e2e.small_models import MODELS, around
from tests.frontend.onnx_models import node, run_onnxruntime

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for x86-64")
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM"}
SAMPLES = 10
INTEGER = {"split", "mirrored border", "border of zeros", "transposes inside", "concat with itself", "max pool, ceil"}
INTEGER |= {"slice with steps", "resize, nearest, 1.5", "global max pool"}


def feeds(specs: tuple[TensorSpec, ...], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        s.name: rng.standard_normal(s.shape).astype(s.dtype)
        if "float" in s.dtype
        else rng.integers(0, 3, s.shape).astype(s.dtype)
        for s in specs
    }


def int8_plan(imported: qc.Model) -> QuantPlan:
    samples = [feeds(imported.inputs, seed) for seed in range(SAMPLES)]
    stats = qc.calibrate(imported, {name: np.stack([s[name] for s in samples]) for name in samples[0]})
    return qc.plan_uniform(imported, stats)


def assert_close(artifact: qc.Artifact, proto: onnx.ModelProto, x: dict[str, np.ndarray], tolerance: float) -> None:
    """Of equal type and shape, integers equal, real values to ``tolerance`` of their norm."""
    actual = qc.load(artifact.path).run(x)
    expected = run_onnxruntime(proto, x)
    for want, got in zip(expected, actual.values(), strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.kind == "f":
            assert np.linalg.norm(got.astype(float) - want) <= tolerance * np.linalg.norm(want)
        else:
            np.testing.assert_array_equal(got, want)


def has_weights(name: str) -> bool:
    return not WEIGHTED.isdisjoint(n.op_type for n in MODELS[name]().graph.node)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * has_weights(n)) for n in MODELS])
def test_float32(name, tmp_path):
    proto = MODELS[name]()
    imported = qc.import_onnx(proto)
    artifact = qc.build(imported, qc.plan_uniform(imported, None, "fp32"), "x86", out=tmp_path / "out")
    assert_close(artifact, proto, feeds(imported.inputs, SAMPLES), 1e-3 if name == "float16" else 1e-4)


@pytest.mark.parametrize("name", [n for n in MODELS if has_weights(n)])
def test_int8(name, tmp_path):
    proto = MODELS[name]()
    imported = qc.import_onnx(proto)
    artifact = qc.build(imported, int8_plan(imported), "x86", out=tmp_path / "out")
    if name in INTEGER:
        assert [layer.name for layer in artifact.manifest.layers if layer.format != "int8"] == []
    # On a sample of the calibration nothing saturates.
    assert_close(artifact, proto, feeds(imported.inputs, seed=0), 0.03)


def test_a_layer_that_never_saw_data_of_any_size(tmp_path):
    """Calibrated on next to nothing, everything has the smallest scale; the build and its results stay finite."""
    proto = around([node("Relu", "c", "d")])
    imported = qc.import_onnx(proto)
    samples = np.zeros((2, 8, 9, 9), np.float32)
    samples[0, 0, 0, 0] = 1e-38
    stats = qc.calibrate(imported, {"x": samples})
    artifact = qc.build(imported, qc.plan_uniform(imported, stats), "x86", out=tmp_path / "out")
    for x in (np.zeros, np.ones):
        assert np.isfinite(qc.load(artifact.path).run({"x": x((1, 8, 9, 9), np.float32)})["y"]).all()
