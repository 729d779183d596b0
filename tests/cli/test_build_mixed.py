"""qcompile build --precision mixed."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from qcompile.analyze import costs as analysis
from qcompile.artifact import open_artifact
from qcompile.cli.app import main
from qcompile.tune.log import TuningLog
from tests.building import cnn


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with model.onnx, c.npz and e.npz, which has labels."""
    place = tmp_path_factory.mktemp("mixed")
    onnx.save(cnn(), place / "model.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 3, 12, 12)).astype(np.float32)
    np.savez(place / "c.npz", x=x)
    np.savez(place / "e.npz", x=x, labels=np.arange(12) % 5)
    return place


def build(folder, *options, records="none") -> int:
    fixed = ["--calib-data", folder / "c.npz", "--precision", "mixed", "--tuning-records", records, "--formats", "int8"]
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in ("build", folder / "model.onnx", *fixed, *options)])
    return exit.value.code


def test_a_drop_and_a_table(folder, tmp_path, capsys):
    table, out = tmp_path / "t.json", tmp_path / "out"
    options = ("--eval-data", folder / "e.npz", "--max-drop", "0.5", "--table", table, "-o", out)
    assert build(folder, *options) == 0
    shown = capsys.readouterr().out
    assert "drop of top1" in shown and "samples held back" in shown and "max drop   0.5 kept" in shown
    assert {layer.format for layer in open_artifact(out).manifest.layers} <= {"int8", "fp32"}
    assert json.loads(table.read_text())["checks"]
    assert build(folder, *options, "--json", "--report", tmp_path / "r.html") == 0
    printed = capsys.readouterr()
    page = (tmp_path / "r.html").read_text()
    assert "This plan: " in page and "samples held back" in page and "plans that were checked" in page
    assert f"note: sensitivities from {table}" in printed.err
    values = json.loads(printed.out)["mixed"]
    assert values["met"] and values["held"]["metric"] == "top1" and any(trial["chosen"] for trial in values["trials"])


def test_a_table_of_other_formats_is_not_what_was_asked_for(folder, tmp_path, capsys):
    table = tmp_path / "t.json"
    options = ("--eval-data", folder / "e.npz", "--max-drop", "0.5", "--table", table, "-o", tmp_path / "out")
    assert build(folder, *options) == 0
    assert build(folder, *options, "--formats", "bf16") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(
        "it is of fp32, int8, and --formats says int8, bf16; leave --formats out, or name another table"
    )


def test_what_is_not_met_is_built_and_told(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert build(folder, "--eval-data", folder / "e.npz", "--latency-budget", "0.001us", "-o", out) == 2
    assert "no assignment has latency of at most" in capsys.readouterr().err and not out.exists()
    options = ("--metric", "mse", "--max-drop", "0", "--size-budget", "2KB", "--objective", "latency", "-o", out)
    assert build(folder, *options) == 1
    printed = capsys.readouterr()
    assert "holds the best plan found" in printed.err and "not kept" in printed.out
    assert "plans are measured on the data that they were calibrated on" in printed.err
    assert (out / "manifest.json").exists()


def test_a_table_outlives_a_budget_that_nothing_keeps(folder, tmp_path, capsys):
    table = tmp_path / "t.json"
    assert build(folder, "--size-budget", "1", "--table", table, "-o", tmp_path / "out") == 2
    assert table.exists() and "best reachable" in capsys.readouterr().err


def test_what_is_tuned_is_tuned_before_it_is_timed(folder, tmp_path, capsys, monkeypatch):
    """Layers of every format, so that their times, and what they are chosen by, are those of the build."""
    log, times = tmp_path / "log.db", []
    layers = analysis.time_layers
    monkeypatch.setattr(analysis, "time_layers", lambda *args: times.append(log.exists()) or layers(*args))
    options = ("--trials", "24", "--max-drop", "1", "--json", "-o", tmp_path / "out")
    assert build(folder, "--eval-data", folder / "e.npz", *options, records=log) == 0
    assert times == [True]
    with TuningLog.open(log, read_only=True) as kept:
        assert len({record.instructions for record in kept.records()}) > 1  # of int8 and of float32
    assert "tuned" in json.loads(capsys.readouterr().out)["schedules"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing limits the choice of formats"),
        (("--max-drop", "x"), "'x' is no drop"),
        (("--latency-budget", "5"), "'5' is no amount"),
        (("--max-drop", "1%", "--integer-io"), "--integer-io"),
        (("--max-drop", "1%", "--table", "nowhere/t.json"), "nowhere: no such folder"),
        (("--max-drop", "1%", "--table", "/"), "/: it is a folder"),
        (("--max-drop", "1%"), "fp32 is at 0 by the metric, and 1% of that is nothing"),
        (("--max-drop", "1", "--metric", "top1"), "the metric needs 1 labels a run of the model"),
        (("--max-drop", "1", "--eval-data", "none.npz"), "none.npz"),
        (("--max-drop", "1%", "--plan", "plan.json"), "--plan and --precision mixed contradict each other"),
        (("--max-drop", "1%", "--locked", "out"), "--locked: an earlier build's schedules are those of its plan"),
        (("--max-drop", "1", "--trials", "3", "--table", "t.json"), "t.json: the times in it are of the schedules"),
        (("--workers", "2", "--precision", "int8"), "--workers: it is for mixed precision"),
        (("--max-drop", "1%", "--precision", "int8"), "--max-drop: it is for mixed precision"),
        (("--precision", "int7"), "unknown precision 'int7'; did you mean 'int8'"),
    ],
)
def test_misuse_is_one_line(folder, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.json").write_text("{}")
    assert build(folder, *options, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()
