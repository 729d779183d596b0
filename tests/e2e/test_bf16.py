"""bfloat16 layers, from ONNX models to artifacts."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.cli import main
from qcompile.targets.select import can_run
from qcompile.targets.x86 import ROWS
from tests.building import cnn, samples
from tests.e2e.small_models import MODELS
from tests.e2e.test_w4a8 import block
from tests.frontend.onnx_models import model, node, run_onnxruntime, weights

ROUNDING = 2**-8  # of one bfloat16 number


def kinds_of_convolutions() -> onnx.ModelProto:
    """Odd channels, groups, dilation, asymmetric pads, depthwise, transposed; a residual; a batch of two."""
    nodes = [
        node("Conv", "x w0", "a", pads=[0, 1, 1, 0]),
        node("Relu", "a", "b"),
        node("Conv", "b w1", "c", group=3, dilations=[2, 2], pads=[2, 2, 2, 2]),
        node("Add", "c b", "d"),
        node("Conv", "d w2", "e", group=9, pads=[1, 1, 1, 1]),
        node("MaxPool", "e", "f", kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", "f w3", "y", strides=[2, 2]),
    ]
    shapes = {"w0": (9, 3, 2, 2), "w1": (9, 3, 3, 3), "w2": (9, 1, 3, 3), "w3": (9, 5, 3, 3)}
    constants = {name: weights(*shape, seed=i) / 3 for i, (name, shape) in enumerate(shapes.items())}
    return model(nodes, {"x": (2, 3, 10, 8)}, constants=constants)


MADE = {"cnn": cnn, "convolutions": kinds_of_convolutions, "block of a transformer": block}
SOME = ("split", "concat of odd channels", "input is output")
TARGETS = [ROWS[0].extended("avx512_bf16"), ROWS[-1]]


@pytest.mark.parametrize("row", TARGETS, ids=lambda row: row.name)
@pytest.mark.parametrize("name", [*MADE, *SOME])
def test_close_to_onnx_runtime(name, row, tmp_path):
    if not can_run(row):
        pytest.skip(f"this CPU cannot run {row.name}")
    proto = {**MODELS, **MADE}[name]()
    imported = qc.import_onnx(proto)
    artifact = qc.build(imported, qc.plan_uniform(imported, None, "bf16"), target=row, out=tmp_path / "out")
    assert {layer.format for layer in artifact.manifest.layers if layer.macs} <= {"bf16"}
    assert not any(layer.reason for layer in artifact.manifest.layers if layer.format == "bf16")
    feeds = samples(imported, 1)[0]
    results = qc.load(artifact.path).run(feeds)
    for spec, want in zip(imported.outputs, run_onnxruntime(proto, feeds), strict=True):
        got = results[spec.name]
        if got.dtype == np.float32:
            assert np.linalg.norm(got - want) <= 4 * ROUNDING * np.linalg.norm(want)


def test_the_command_needs_no_data(tmp_path, capsys):
    onnx.save(cnn(), tmp_path / "model.onnx")
    sizes = {}
    for precision in ("bf16", "fp32"):
        arguments = ["build", str(tmp_path / "model.onnx"), "--precision", precision, "--target", "x86-avx2", "--json"]
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "-o", str(tmp_path / precision)])
        assert stopped.value.code in (0, None)
        out = capsys.readouterr()
        assert out.err == "" and precision in json.loads(out.out)["layers"]
        sizes[precision] = qc.load(tmp_path / precision).manifest.weights.bytes
    assert sizes["bf16"] < 0.7 * sizes["fp32"]


def test_predicted_times_are_those_of_another_instruction():
    imported = qc.import_onnx(kinds_of_convolutions())
    plans = {name: qc.plan_uniform(imported, None, name) for name in ("fp32", "bf16")}
    costs = qc.layer_costs(imported, plans, ROWS[0].extended("avx512_bf16"), tuning_records="none")
    seconds = {(cost.layer, cost.format): cost.seconds for cost in costs}
    layers = {layer for layer, format in seconds if format == "bf16"}
    assert len(layers) == 4 and all(seconds[layer, "bf16"] > 0 for layer in layers)
