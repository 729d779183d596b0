"""Weights in fewer bits with float activations, from an ONNX model to an artifact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.cli import main
from qcompile.targets.select import can_run
from qcompile.targets.x86 import ROWS
from tests.building import samples
from tests.e2e.test_bf16 import kinds_of_convolutions
from tests.e2e.test_w4a8 import block
from tests.frontend.onnx_models import run_onnxruntime

ERRORS = {"w8": 0.02, "fp16": 1e-3}  # relative, of a few layers


@pytest.mark.parametrize("row", [ROWS[0], ROWS[-1]], ids=lambda row: row.name)
@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("made", [block, kinds_of_convolutions])
def test_close_to_onnx_runtime(made, precision, row, tmp_path):
    if not can_run(row):
        pytest.skip(f"this CPU cannot run {row.name}")
    proto = made()
    imported = qc.import_onnx(proto)
    artifact = qc.build(imported, qc.plan_uniform(imported, None, precision), target=row, out=tmp_path / "out")
    assert {layer.format for layer in artifact.manifest.layers if layer.macs} == {precision}
    feeds = samples(imported, 1)[0]
    got = qc.load(artifact.path).run(feeds)["y"]
    (want,) = run_onnxruntime(proto, feeds)
    assert 0 < np.linalg.norm(got - want) < ERRORS[precision] * np.linalg.norm(want)


def test_the_command_needs_no_data(tmp_path, capsys):
    onnx.save(block(), tmp_path / "model.onnx")
    sizes = {}
    for precision in ("w8", "fp32"):
        out = tmp_path / precision
        with pytest.raises(SystemExit) as stopped:
            main(
                [
                    "build",
                    str(tmp_path / "model.onnx"),
                    "--precision",
                    precision,
                    "--target",
                    "x86-avx2",
                    "-o",
                    str(out),
                ]
            )
        assert stopped.value.code in (0, None)
        sizes[precision] = qc.load(out).manifest.weights.bytes
    assert capsys.readouterr().err == "note: without --calib-data weights take their nearest codes\n"
    assert sizes["w8"] < 0.35 * sizes["fp32"]
