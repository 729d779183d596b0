"""``qcompile tune``: a small model measured for real, its log used by a build, and what is refused."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import onnx
import pytest

from qcompile.cli.tune import formats_of, left, seconds
from qcompile.errors import QCompileError
from qcompile.targets.select import select_target
from qcompile.tune.locations import default_log
from qcompile.tune.session import Budget
from tests.building import cnn
from tests.emulation import skip_without

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="measures x86-64 code")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    onnx.save(cnn(), folder / "model.onnx")
    return folder


@pytest.fixture
def cli(cli, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return cli


def test_tune_then_build(cli, folder):
    """A few trials of one layer; the build finds them and says so; a log that has enough needs no more."""
    argv = ["model.onnx", "--tuning-records", "t.db"]
    code, out, err = cli("tune", *argv, "--tasks", "conv0,depthwise", "--trials", "4", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["trials"] == 4 and result["stopped"] == "trials"
    assert {layer for task in result["tasks"] for layer in task["layers"]} == {"conv0", "depthwise"}
    assert sum(task["trials"] for task in result["tasks"]) == 4
    measured = [task for task in result["tasks"] if task["best_seconds"]]
    assert measured and all(task["failed"] == 0 for task in result["tasks"])
    assert all(0 < task["best_seconds"] < 1 for task in measured)
    code, out, err = cli("tune", *argv, "--tasks", "conv0,depthwise", "--trials", "4", "--resume")
    assert code == 0 and "0 in" in out and "trials were spent" in out
    code, out, _ = cli("build", *argv, "-o", "out")
    assert code == 0
    tuned = len({layer for task in measured for layer in task["layers"]})
    (line,) = [line for line in out.splitlines() if line.startswith("schedules")]
    assert f"{tuned} tuned" in line
    assert not default_log().exists()


def test_counted_for_a_core_then_built(cli):
    skip_without(select_target("neoverse-n1"), counting=True)
    argv = ["model.onnx", "--target", "neoverse-n1", "--tuning-records", "n1.db"]
    counting = ["--runner", "icount", "--tasks", "depthwise,classes"]
    code, out, err = cli("tune", *argv, *counting, "--trials", "10", "--json")
    assert code == 0, err
    tasks = json.loads(out)["tasks"]
    assert [task["unit"] for task in tasks] == ["instructions"] * 2
    assert all(task["best_instructions"] > 10 and task["failed"] == 0 for task in tasks)
    assert "best instructions" in cli("log", "show", "n1.db")[1]
    assert "waiting" not in cli("tune", *argv, *counting[:2], "--tasks", "list")[1].split("classes")[1]
    _, out, _ = cli("build", *argv, "-o", "n1")
    (line,) = [line for line in out.splitlines() if line.startswith("schedules")]
    assert "2 counted" in line


def test_the_default_log_is_the_users_own(cli):
    code, _, err = cli("tune", "model.onnx", "--trials", "1", "--tasks", "classes")
    assert code == 0, err
    assert default_log().exists()


def test_listing_tasks_measures_and_creates_nothing(cli, folder):
    code, out, _ = cli("tune", "model.onnx", "--tasks", "list", "--tuning-records", "none-yet.db")
    assert code == 0
    for words in ("conv0", "depthwise_conv2d", "3x3/2 3 -> 20, 6x6", "waiting"):
        assert words in out
    assert not (folder / "none-yet.db").exists()
    code, out, _ = cli("tune", "model.onnx", "--tasks", "list", "--formats", "int8,fp32", "--json")
    assert code == 0 and len(json.loads(out)) == 6


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--tasks", "conv1"], "no task has a layer 'conv1'; did you mean 'conv0'?"),
        (["--time-budget", "soon"], "--time-budget: 'soon' is not a time; write 90s, 5m or 1h"),
        (["--formats", "int9"], "--formats: unknown format 'int9'; did you mean 'int8'?"),
        (["--rpc-tracker", "localhost:9190"], "--rpc-tracker: a machine of a tracker needs both its address and a key"),
        (["--rpc-key", "k"], "give --rpc-tracker HOST:PORT --rpc-key KEY"),
        (["--rpc-tracker", "localhost", "--rpc-key", "k"], "--rpc-tracker: 'localhost' is no address; write it as"),
        (["--rpc", "localhost:http"], "--rpc: 'localhost:http' is no address; write it as HOST:PORT"),
        (["--rpc", "localhost:9190", "--rpc-key", "k"], "--rpc: a server needs no tracker and no key"),
        (["--runner", "rpc"], "--runner rpc: needs to know the machine; give --rpc HOST:PORT, or --rpc-tracker"),
        (["--runner", "icount", "--rpc", "localhost:9190"], "--runner icount: a machine to measure on is named, too"),
        (["--runner", "icount"], "--runner icount: this machine runs code for x86-"),
        (["--target", "neoverse-n1"], "cannot time code for neoverse-n1 (aarch64); measure on a board (--runner rpc)"),
        (["--tuning-records", "none"], "--tuning-records: tuning needs a log to write to; name a file"),
        (["--tuning-records", "model.onnx"], "model.onnx"),
        (["--target", "x86-vni"], "no target 'x86-vni'; did you mean 'x86-vnni'?"),
    ],
)
def test_misuse_is_one_line(cli, argv, message):
    code, out, err = cli("tune", "model.onnx", *argv)
    assert code == 2 and out == ""
    assert message in err.splitlines()[-1]


def test_times_and_formats_as_people_write_them():
    assert [seconds(text) for text in ("90", "90s", "1.5m", "2 h", None)] == [90, 90, 90, 7200, None]
    assert formats_of("fp32, int8,fp32") == ("fp32", "int8")
    with pytest.raises(QCompileError, match="no format"):
        formats_of("")


def test_the_budget_that_ends_first_says_how_long_is_left():
    assert left(Budget(), 10, 5.0) == ""
    assert left(Budget(seconds=60), 10, 5.0) == ", at most 55 s left"
    assert left(Budget(trials=20, seconds=60), 10, 5.0) == ", at most 5 s left"
