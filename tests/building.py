"""Small ONNX models that become artifacts, for the tests of building."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

import qcompile as qc
from qcompile.model import Model
from tests.frontend.onnx_models import model, node, weights


def cnn(batch: int = 1) -> onnx.ModelProto:
    """Conv, Relu, depthwise Conv, residual Add, GlobalAveragePool, Flatten, Gemm: (N, 3, 12, 12) -> (N, 5)."""
    nodes = [
        node("Conv", "x w0 b0", "c0", "conv0", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c0", "r0", "relu0"),
        node("Conv", "r0 w1", "c1", "depthwise", pads=[1, 1, 1, 1], group=20),
        node("Add", "c1 r0", "a", "residual"),
        node("GlobalAveragePool", "a", "p", "pool"),
        node("Flatten", "p", "f", "flatten"),
        node("Gemm", "f w2 b2", "y", "classes", transB=1),
    ]
    constants = {
        "w0": weights(20, 3, 3, 3),
        "b0": weights(20),
        "w1": weights(20, 1, 3, 3, seed=1),
        "w2": weights(5, 20, seed=2),
        "b2": weights(5, seed=3),
    }
    return model(nodes, {"x": (batch, 3, 12, 12)}, constants=constants)


def with_island() -> onnx.ModelProto:
    """A CumSum between two products; two outputs."""
    nodes = [
        node("MatMul", "x w0", "m", "first"),
        node("CumSum", "m axis", "s", "sum"),
        node("MatMul", "s w1", "y", "second"),
    ]
    constants = {"w0": weights(6, 9), "w1": weights(9, 4, seed=1), "axis": np.array(1)}
    return model(nodes, {"x": (3, 6)}, ("y", "s"), constants)


def samples(imported: Model, count: int = 4, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{i.name: rng.standard_normal(i.shape).astype(i.dtype) for i in imported.inputs} for _ in range(count)]


def plan_of(imported: Model, target: str = "x86-avx2", **options) -> qc.QuantPlan:
    stats = qc.calibrate(imported, samples(imported))
    return qc.plan_uniform(imported, stats, "int8", qc.select_target(target), **options)


def files(artifact: qc.Artifact) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in artifact.path.iterdir()}
