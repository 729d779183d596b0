"""qcompile analyze and qcompile debug."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from qcompile.assign.table import SensitivityTable
from qcompile.cli.app import main
from qcompile.plan import QuantPlan
from tests.building import cnn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with model.onnx, c.npz and e.npz, which has labels."""
    place = tmp_path_factory.mktemp("analyze")
    onnx.save(cnn(), place / "model.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3, 12, 12)).astype(np.float32)
    np.savez(place / "c.npz", x=x)
    np.savez(place / "e.npz", x=x, labels=np.arange(6) % 5)
    return place


def call(*arguments) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return exit.value.code


def analyze(folder, *options) -> int:
    return call("analyze", folder / "model.onnx", "--calib-data", folder / "c.npz", *options)


def test_a_table(folder, tmp_path, capsys):
    out = tmp_path / "table.json"
    assert analyze(folder, "-o", out, "--num-samples", 4, "--hessian", 1, "--report", tmp_path / "r.html") == 0
    shown = capsys.readouterr().out
    assert "No plan was chosen" in (tmp_path / "r.html").read_text()
    assert "metric     kl, in nats, on 4 samples" in shown and "hawq" in shown and "up to here" in shown
    table = SensitivityTable.load(out)
    assert table.samples == 4 and {f.name for f in table.formats} == {"fp32", "int8"}
    assert not list(tmp_path.glob(".*")), "no checkpoint is left"


def test_with_labels_for_machines(folder, tmp_path, capsys):
    options = ("-o", tmp_path / "t.json", "--eval-data", folder / "e.npz", "--metric", "top1", "--alone", "--json")
    assert analyze(folder, *options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["metric"] == "top1" and printed["samples"] == 6
    assert all(group["formats"]["int8"]["upto"] is None for group in printed["groups"])


@pytest.mark.parametrize("options", [(), ("--no-equalize", "--no-learn-rounding", "--no-bias-correction")])
def test_plans_are_those_of_a_build(folder, tmp_path, options):
    out = tmp_path / "t.json"
    assert analyze(folder, "-o", out, "--formats", "int8,w8", "--no-measure", "--alone", *options) == 0
    table = SensitivityTable.load(out)
    assert table.device == "" and not any(e.measured for g in table.groups for e in g.entries.values())
    assert call("build", folder / "model.onnx", "--calib-data", folder / "c.npz", "-o", tmp_path / "o", *options) == 0
    built, plan = QuantPlan.load(tmp_path / "o" / "plan.json"), table.plans["int8"]
    assert (built.layers, built.tensors, built.channel_scales) == (plan.layers, plan.tensors, plan.channel_scales)
    assert table.plans["w8"].channel_scales == plan.channel_scales  # one model for all formats


def test_weight_only_plans_are_those_of_a_build(folder, tmp_path):
    out = tmp_path / "t.json"
    assert analyze(folder, "-o", out, "--formats", "w8", "--no-measure", "--alone") == 0
    build = ("build", folder / "model.onnx", "--precision", "w8", "-o", tmp_path / "o")
    assert call(*build, "--calib-data", folder / "c.npz") == 0
    built, plan = QuantPlan.load(tmp_path / "o" / "plan.json"), SensitivityTable.load(out).plans["w8"]
    assert (built.layers, built.tensors, built.channel_scales) == (plan.layers, plan.tensors, plan.channel_scales)
    assert any(tensor.shift for tensor in built.tensors.values())


def test_weights_without_data_take_their_nearest_codes(folder, tmp_path, capsys):
    build = ("build", folder / "model.onnx", "-o", tmp_path / "o")
    assert call(*build, "--precision", "w8") == 0
    assert capsys.readouterr().err == "note: without --calib-data weights take their nearest codes\n"
    assert not any(t.shift or t.moves for t in QuantPlan.load(tmp_path / "o" / "plan.json").tensors.values())
    assert call(*build, "--precision", "w4") == 0
    assert "note: no layer of this model can be w4\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (("--formats", "int9"), "unknown format 'int9'"),
        (("--formats", "fp32"), "nothing to compare fp32 with"),
        (("--metric", "kll"), "unknown metric 'kll'; did you mean 'kl'"),
        (("--metric", "top1"), "the metric needs 1 labels a run of the model, and there are: none"),
        (("--target", "x86-vni"), "no target 'x86-vni'"),
    ],
)
def test_misuse_is_one_line(folder, tmp_path, capsys, options, message):
    assert analyze(folder, "-o", tmp_path / "t.json", *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "t.json").exists()


def test_no_folder_for_the_table(folder, tmp_path, capsys):
    assert analyze(folder, "-o", tmp_path / "missing" / "t.json") == 2
    assert "no such folder" in capsys.readouterr().err


def test_debug(folder, tmp_path, capsys):
    model, out = folder / "model.onnx", tmp_path / "out"
    assert call("build", model, "--calib-data", folder / "c.npz", "-o", out, "--tuning-records", "none") == 0
    capsys.readouterr()
    page = tmp_path / "debug.html"
    assert call("debug", out, model, "--inputs", folder / "c.npz", "--num-samples", 2, "--report", page) == 0
    shown = capsys.readouterr().out
    assert "Errors of model.onnx" in page.read_text() and "on c.npz" in page.read_text()
    assert "sqnr alone" in shown and "clipped" in shown and "classes" in shown
    assert call("debug", out, model, "--inputs", folder / "c.npz", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["sqnr_alone"] for row in rows] == sorted(row["sqnr_alone"] for row in rows)


def test_debug_of_another_model(folder, tmp_path, capsys):
    other, out = tmp_path / "other.onnx", tmp_path / "out"
    onnx.save(cnn(batch=2), other)
    assert call("build", other, "--calib-data", folder / "c.npz", "-o", out, "--tuning-records", "none") == 0
    assert call("debug", out, folder / "model.onnx", "--inputs", folder / "c.npz") == 2
    assert "was built from another model" in capsys.readouterr().err.replace("\n", " ")
