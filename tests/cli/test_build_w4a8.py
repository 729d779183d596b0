"""``qcompile build --precision w4a8``."""

from __future__ import annotations

import json
import platform

import numpy as np
import onnx
import pytest

from qcompile.plan import QuantPlan
from qcompile.targets.select import can_run, select_target
from tests.frontend.onnx_models import model, node, weights

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for x86-64")


@pytest.fixture
def cli(cli, tmp_path, monkeypatch):
    """Beside model.onnx: 64 inputs, of which 20 are left after the first of two products."""
    constants = {"w0": weights(64, 20), "w1": weights(20, 6, seed=1)}
    nodes = [node("MatMul", "x w0", "h", "first"), node("Relu", "h", "r"), node("MatMul", "r w1", "y", "second")]
    onnx.save(model(nodes, {"x": (3, 64)}, constants=constants), tmp_path / "model.onnx")
    np.savez(tmp_path / "calib.npz", x=np.random.default_rng(0).standard_normal((4, 3, 64)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return cli


BUILD = ("build", "model.onnx", "--precision", "w4a8", "--calib-data", "calib.npz", "--target", "x86-avx2", "-o", "out")


def test_layers_that_cannot_be_are_told(cli, tmp_path):
    code, out, err = cli(*BUILD, "--json")
    assert code == 0 and "1 x int8: 20 inputs are not a multiple of the group size 32 (y)" in err
    assert json.loads(out)["layers"] == {"int8": 2, "w4a8": 1}  # the input's codes are a layer
    assert QuantPlan.load(tmp_path / "out/plan.json").layers["r"].format == "w4a8"


def test_the_size_of_groups(cli, tmp_path):
    code, _, _ = cli(*BUILD, "--group-size", "64")
    assert code == 0 and QuantPlan.load(tmp_path / "out/plan.json").tensors["r.weight"].group == 64


def test_the_plan_builds_again(cli, tmp_path):
    assert cli(*BUILD)[0] == 0
    code, _, _ = cli("build", "model.onnx", "--plan", "out/plan.json", "--target", "x86-avx2", "-o", "again")
    assert code == 0
    assert (tmp_path / "out/weights.bin").read_bytes() == (tmp_path / "again/weights.bin").read_bytes()


@pytest.mark.skipif(not can_run(select_target("x86-avx2")), reason="runs AVX2")
def test_bench_names_the_format_of_most_products(cli):
    assert cli(*BUILD)[0] == 0
    code, out, _ = cli("bench", "out", "--vs", "none", "--duration", "0.05")
    assert code == 0 and " qcompile   w4a8 " in out
