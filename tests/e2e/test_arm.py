"""Whole models built for ARM give the bits of the x86 build and of the oracle, under an emulator."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.plan import QuantPlan
from qcompile.reference import interpreter
from qcompile.runtime.emulate import Emulator
from qcompile.targets.arm import ROWS
from qcompile.targets.select import can_run, select_target
from tests.e2e.small_models import conv, w
from tests.emulation import skip_without
from tests.frontend.onnx_models import model, node, weights

DIGITS = Path(__file__).parents[2] / "examples/digits"
each_row = pytest.mark.parametrize("target", ROWS, ids=lambda row: row.name)


def mlp() -> onnx.ModelProto:
    """Three dense layers with odd extents, a sigmoid in between."""
    nodes = [
        node("Gemm", "x a b", "h", transB=1),
        node("Sigmoid", "h", "s"),
        node("Gemm", "s c", "g", transB=1),
        node("Relu", "g", "r"),
        node("Gemm", "r d", "y", transB=1),
    ]
    constants = {"a": w(70, 33), "b": weights(70), "c": w(67, 70, seed=1), "d": w(10, 67, seed=2)}
    return model(nodes, {"x": (3, 33)}, constants=constants)


def cnn() -> onnx.ModelProto:
    """A stem of three channels, a residual, depthwise, max and average pooling, concatenation, hard swish, resize."""
    nodes = [
        conv("a", "x", "wa", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("HardSwish", "a", "h"),
        conv("b", "h", "wb", pads=[1, 1, 1, 1], group=24),
        conv("c", "b", "wc"),
        node("Add", "c h", "r"),
        node("MaxPool", "r", "m", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", "r", "v", kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", "m v", "d", axis=1),
        conv("e", "d", "we", pads=[1, 1, 1, 1]),
        node("Relu", "e", "f"),
        node("GlobalAveragePool", "f", "p"),
        node("Flatten", "p", "y"),
    ]
    constants = {"wa": w(24, 3, 3, 3), "wb": w(24, 1, 3, 3, seed=1), "wc": w(24, 24, 1, 1, seed=2)}
    constants["we"] = w(37, 48, 3, 3, seed=3)
    return model(nodes, {"x": (1, 3, 20, 20)}, constants=constants)


Feeds = tuple[dict[str, np.ndarray], ...]
MODELS: dict[str, Callable[[], Path | onnx.ModelProto]] = {
    "digits": lambda: DIGITS / "model.onnx",
    "mlp": mlp,
    "cnn": cnn,
}


@cache
def planned(
    name: str,
) -> tuple[qc.Model, QuantPlan, Feeds, Feeds]:
    """Model, plan, two feeds, and what the oracle computes of them."""
    imported, rng = qc.import_onnx(MODELS[name]()), np.random.default_rng(0)
    spec = imported.inputs[0]
    samples = rng.standard_normal((8, *spec.shape[1:])).astype(np.float32)
    batches = samples.reshape(-1, *spec.shape) if spec.shape[0] == 1 else samples[:3][None]
    plan = qc.plan_uniform(imported, qc.calibrate(imported, {spec.name: samples}), "int8")
    feeds = tuple({spec.name: 1.5 * batch} for batch in batches[:2])
    module = run_passes(imported.module, form_passes(plan, imported.layers))
    expected = tuple(interpreter.run(module, feed) for feed in feeds)
    return imported, plan, feeds, expected


@each_row
@pytest.mark.parametrize("name", MODELS)
def test_the_bits_of_the_oracle(name, target, tmp_path):
    skip_without(target)
    imported, plan, feeds, expected = planned(name)
    artifact = qc.build(imported, plan, target, out=tmp_path / "out", tuning_records="none")
    assert (artifact.manifest.triple, artifact.manifest.features) == (target.triple, target.features)
    emulator = Emulator(artifact.path)
    for feed, want in zip(feeds, expected, strict=True):
        for wanted, got in zip(want.values(), emulator.run(feed).values(), strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "w8", "w4a8"])
def test_other_formats(precision, tmp_path):
    """Codes to the bit; floats, summed in another order, to their rounding."""
    target = select_target("arm")
    skip_without(target)
    imported, _, feeds, _ = planned("mlp")
    plan = qc.plan_uniform(imported, qc.calibrate(imported, {"x": feeds[0]["x"]}), precision)
    module = run_passes(imported.module, form_passes(plan, imported.layers))
    emulator = Emulator(qc.build(imported, plan, target, out=tmp_path / "out", tuning_records="none").path)
    (want,), (got,) = (list(r.values()) for r in (interpreter.run(module, feeds[0]), emulator.run(feeds[0])))
    tolerance = 0 if precision == "w4a8" else 1e-6 * np.abs(want).max()
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_so_has_the_x86_build(name, tmp_path):
    """Of the same plan."""
    target = select_target("x86-avx2")
    if not can_run(target):
        pytest.skip(f"this CPU cannot run {target.name}")
    imported, plan, feeds, expected = planned(name)
    runner = qc.load(qc.build(imported, plan, target, out=tmp_path / "out", tuning_records="none").path)
    for feed, want in zip(feeds, expected, strict=True):
        for wanted, got in zip(want.values(), runner.run(feed).values(), strict=True):
            np.testing.assert_array_equal(got, wanted)


def transformer() -> onnx.ModelProto:
    """A layer norm, a GELU, and a softmax over so many classes that its sum is split into partial ones."""
    nodes = [
        node("LayerNormalization", "x g s", "n", axis=-1),
        node("MatMul", "n a", "h"),
        node("Div", "h root", "d"),
        node("Erf", "d", "e"),
        node("Add", "e one", "f"),
        node("Mul", "h f", "u"),
        node("MatMul", "u b", "l"),
        node("Softmax", "l", "y", axis=-1),
    ]
    constants = {"g": weights(96), "s": weights(96, seed=1), "a": w(96, 64, seed=2), "b": w(64, 1000, seed=3)}
    constants |= {"root": np.float32(2**0.5).reshape(1), "one": np.float32(1).reshape(1)}
    return model(nodes, {"x": (3, 96)}, constants=constants)


def test_float_islands_have_the_same_bits(tmp_path):
    """Sums of floats are made in one order, whatever the width of the target's vectors."""
    names = [name for name in ("x86-avx512", "x86-avx2") if can_run(select_target(name))]
    skip_without(select_target("arm-neon"))
    imported = qc.import_onnx(transformer())
    feed = {"x": np.random.default_rng(0).standard_normal((3, 96)).astype(np.float32)}
    plan = qc.plan_uniform(imported, qc.calibrate(imported, {"x": feed["x"][None]}), "int8")
    results = {}
    for name in (*names, "arm-neon", "arm-i8mm"):
        artifact = qc.build(imported, plan, name, out=tmp_path / name, tuning_records="none")
        assert any(layer.reason for layer in artifact.manifest.layers)
        runner = Emulator(artifact.path) if name.startswith("arm") else qc.load(artifact.path)
        results[name] = runner.run(feed)["y"].copy()
    first, *others = results.values()
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-5)
    for other in others:
        np.testing.assert_array_equal(other, first)
