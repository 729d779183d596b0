"""Int4 weights from an ONNX model to an artifact: the oracle's bits on every row, and close to ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

import qcompile as qc
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.plan import QuantPlan
from qcompile.reference.interpreter import run
from qcompile.targets.select import can_run
from qcompile.targets.x86 import ROWS
from tests.building import samples
from tests.frontend.onnx_models import model, node, run_onnxruntime, weights


def block():
    """What a transformer has between its norms: two products with a Gelu-like bend and a residual, (1, 9, 64)."""
    nodes = [
        node("MatMul", "x w0", "m0", "up"),
        node("Add", "m0 b0", "a0"),
        node("Relu", "a0", "r0"),
        node("MatMul", "r0 w1", "m1", "down"),
        node("Add", "m1 b1", "a1"),
        node("Add", "a1 x", "s"),
        node("MatMul", "s w2", "y", "head"),
    ]
    constants = {
        "w0": weights(64, 96),
        "b0": weights(96),
        "w1": weights(96, 64, seed=1),
        "b1": weights(64, seed=2),
        "w2": weights(64, 19, seed=3),
    }
    return model(nodes, {"x": (1, 9, 64)}, constants=constants)


def convolutions():
    """Of any window; the first has too few channels for groups, groups of the second are smaller; a residual."""
    nodes = [
        node("Conv", "x w0", "a", "stem", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("Conv", "b w1", "c", "wide", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c", "d"),
        node("Conv", "d w2", "e", "point"),
        node("Add", "e d", "y"),
    ]
    shapes = {"w0": (16, 3, 3, 3), "w1": (64, 16, 3, 3), "w2": (64, 64, 1, 1)}
    constants = {name: weights(*shape, seed=i) / 3 for i, (name, shape) in enumerate(shapes.items())}
    return model(nodes, {"x": (1, 3, 10, 8)}, constants=constants)


def planned(imported, **options):
    stats = qc.calibrate(imported, samples(imported))
    return qc.plan_uniform(imported, stats, "w4a8", **options)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize(("made", "formats"), [(block, ["w4a8"] * 3), (convolutions, ["int8", "w4a8", "w4a8"])])
def test_the_bits_of_the_oracle(made, formats, row, tmp_path):
    if not can_run(row):
        pytest.skip(f"this CPU cannot run {row.name}")
    proto = made()
    imported = qc.import_onnx(proto)
    plan = planned(imported)
    artifact = qc.build(imported, plan, target=row, out=tmp_path / "out")
    assert [layer.format for layer in artifact.manifest.layers if layer.macs] == formats
    feeds = samples(imported, 1)[0]
    got = qc.load(artifact.path).run(feeds)["y"]
    form = run_passes(imported.module, form_passes(plan, imported.layers))
    np.testing.assert_array_equal(got, run(form, feeds)["y"])
    (want,) = run_onnxruntime(proto, feeds)
    assert 0 < np.linalg.norm(got - want) < 0.15 * np.linalg.norm(want)


def test_a_plan_from_its_file_gives_the_same_artifact(tmp_path):
    imported = qc.import_onnx(block())
    plan = planned(imported, group_size=16)
    plan.save(tmp_path / "plan.json")
    first, second = (
        qc.build(imported, p, target="x86-avx2", out=tmp_path / name)
        for name, p in (("a", plan), ("b", QuantPlan.load(tmp_path / "plan.json")))
    )
    assert (first.path / "weights.bin").read_bytes() == (second.path / "weights.bin").read_bytes()


def test_weights_are_smaller_than_those_of_int8(tmp_path):
    imported = qc.import_onnx(block())
    stats = qc.calibrate(imported, samples(imported))
    sizes = [
        qc.build(imported, qc.plan_uniform(imported, stats, p), "x86-avx2", out=tmp_path / p).manifest.weights.bytes
        for p in ("w4a8", "int8")
    ]
    assert sizes[0] < 0.65 * sizes[1]


@pytest.mark.parametrize("made", [block, convolutions])
def test_float_activations(made, tmp_path):
    proto = made()
    imported = qc.import_onnx(proto)
    artifact = qc.build(imported, qc.plan_uniform(imported, None, "w4"), out=tmp_path / "out")
    assert [layer.format for layer in artifact.manifest.layers if layer.macs][1:] == ["w4", "w4"]
    feeds = samples(imported, 1)[0]
    got = qc.load(artifact.path).run(feeds)["y"]
    (want,) = run_onnxruntime(proto, feeds)
    assert 0 < np.linalg.norm(got - want) < 0.15 * np.linalg.norm(want)
