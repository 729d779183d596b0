"""The command line as its users meet it: what it prints where, and how it exits."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import qcompile as qc
from qcompile.bench import peers
from qcompile.targets.rows import ROWS
from tests.runtime import handmade

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the handmade library is for x86-64")
X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return handmade.build(tmp_path_factory.mktemp("built") / "out").path


def lines(text: str) -> list[str]:
    """Lines with the runs of spaces of a table collapsed, rules and empty lines left out."""
    rows = (" ".join(line.split()) for line in text.splitlines())
    return [row for row in rows if row and set(row) != {"─"}]


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "qcompile", "targets", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(cli, arguments):
    code, out, err = cli(*arguments)
    assert (code, err) == (0, "")
    assert "qcompile build model.onnx --calib-data samples.npz -o out/\n" in out
    assert [line.split()[0] for line in out.split("Commands:\n")[1].splitlines()] == [
        "build",
        "run",
        "package",
        "bench",
        "inspect",
        "debug",
        "tune",
        "analyze",
        "assign",
        "pareto",
        "targets",
        "log",
    ]


@pytest.mark.parametrize(
    "command",
    ["build", "run", "package", "bench", "inspect", "debug", "tune", "analyze", "assign", "pareto", "targets", "log"],
)
def test_every_command_has_help(cli, command):
    code, out, err = cli(command, "-h")
    assert (code, err) == (0, "") and out.startswith(f"Usage: qcompile {command} ")


def test_version(cli):
    assert cli("--version") == (0, f"qcompile {qc.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bild"], "No such command 'bild'. Did you mean 'build'?; see 'qcompile --help'"),
        (["run"], "Missing argument 'path'; see 'qcompile run --help'"),
        (
            ["run", "out", "--inptus", "x"],
            "No such option: --inptus (Possible options: --inputs); see 'qcompile run --help'",
        ),
        (["targets", "--jsn"], "No such option: --jsn (Possible options: --json); see 'qcompile targets --help'"),
        (["run", "/no/such"], "/no/such: no such folder; give a folder made by 'qcompile build'"),
        (["inspect", "/no/such"], "/no/such: no such folder; give a folder made by 'qcompile build'"),
        (
            ["build", "m.onnx", "-o", "x", "--int8", "--fp32"],
            "--int8 and fp32 contradict each other; give one precision",
        ),
        (
            ["build", "m.onnx", "-o", "x", "--target", "x86_vni"],
            "no target 'x86_vni'; did you mean 'x86-vnni'? "
            "(one of: native, x86, arm, x86-vnni, x86-avxvnni, x86-avx512, x86-avx2, arm-i8mm, arm-dotprod, arm-neon, "
            "cortex-a53, cortex-a72, ... 21 in all)",
        ),
        (
            ["build", "m.onnx", "-o", "/dev/null/out"],
            "/dev/null/out: cannot be written: no permission there; choose another folder",
        ),
    ],
)
def test_misuse_is_one_line_and_code_2(cli, arguments, message):
    assert cli(*arguments) == (2, "", f"error: {message}\n")


def test_run_prints_the_largest_values(cli, built, tmp_path):
    np.savez(tmp_path / "x.npz", x=X)
    assert cli("run", built, "--inputs", tmp_path / "x.npz", "--print_top", 2) == (0, "y: 63: 64, 62: 62.9683\n", "")


def test_run_writes_the_outputs_of_every_sample(cli, built, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.concatenate([X, X + 1]))
    assert cli("run", built, "--inputs", tmp_path / "x.npz", "--outputs", tmp_path / "y.npz") == (0, "", "")
    y = np.load(tmp_path / "y.npz")["y"]
    np.testing.assert_array_equal(y, np.concatenate([X, X + 1]) + handmade.WEIGHTS)


def test_run_without_inputs_says_so(cli, built):
    code, out, err = cli("run", built)
    assert code == 0 and out.startswith("y float32 (1, 64): min ")
    assert err == (
        "note: no --inputs, so the model runs on noise\nnote: nothing was kept; give --outputs y.npz or --print-top 5\n"
    )


def test_run_refuses_what_does_not_fit(cli, built, tmp_path):
    np.savez(tmp_path / "x.npz", x=X[:, :3])
    assert cli("run", built, "--inputs", tmp_path / "x.npz") == (
        2,
        "",
        f"error: {tmp_path}/x.npz: 'x' has shape (1, 3), the model takes (1, 64); "
        "give that shape, or a multiple of its first dimension\n",
    )


def test_inspect_an_artifact(cli, built):
    code, out, err = cli("inspect", built, "--layers")
    assert (code, err) == (0, "")
    assert lines(out) == [
        "model add.onnx (1000 B)",
        "target x86-avx2, 1 thread",
        "input x float32 1x64",
        "output y float32 1x64",
        "layers 1 int8, 1 fp32; 100.0% of 4.1k MACs in integers",
        "float 1 x no integer form of Add here (add)",
        "weights 64 B, 0.06x the ONNX file",
        f"code {(built / 'model.so').stat().st_size / 1024:.1f} KB",
        "workspace 256 B",
        "layer op format kernel inputs output MACs scale zero why float",
        "conv1 Conv int8 conv_0 1x64 1x64 4.1k 0.5 128",
        "add Add fp32 add_0 1x64, 1x64 1x64 no integer form of Add here",
    ]


def test_inspect_for_machines(cli, built):
    code, out, _ = cli("inspect", built, "--json")
    assert code == 0 and json.loads(out) == json.loads((built / "manifest.json").read_text())


def test_targets(cli):
    code, out, err = cli("targets", "--json")
    names = [row["name"] for row in json.loads(out)["targets"]]
    assert (code, err) == (0, "") and names == [*(row.name for row in ROWS), "cuda"]
    code, out, err = cli("targets")
    assert (code, err) == (0, "") and all(any(line.startswith(name) for line in lines(out)) for name in names)


def test_bench_alone(cli, built):
    code, out, err = cli("bench", built, "--vs", "none", "--duration", "0.05", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    (ours,) = report["contenders"]
    assert (ours["engine"], ours["format"], ours["ratio_to_fastest"]) == ("qcompile", "int8", 1.0)
    assert 0 < ours["min_us"] <= ours["median_us"] <= ours["p99_us"] and ours["calls"] >= 3
    assert report["gops"] == pytest.approx(2 * 4096e-9 / (ours["min_us"] * 1e-6)) and report["peak_gops"] > 0


def test_bench_refusals(cli, built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("bench", built, "--vs", "tflite") == (
        2,
        "",
        "error: --vs: no peer 'tflite'; (one of: onnxruntime, openvino)\n",
    )
    assert cli("bench", built, "--vs", "none", "--threads", 2) == (
        2,
        "",
        f"error: {built}: built for 1 thread, not 2; build it with --threads 2\n",
    )
    assert cli("bench", built, "--vs", "onnxruntime") == (
        2,
        "",
        "error: add.onnx: the peers need the ONNX model, and it is not there; "
        "give it by --model model.onnx, or measure alone with --vs none\n",
    )
    (tmp_path / "add.onnx").write_text("another")
    assert cli("bench", built, "--vs", "onnxruntime") == (
        2,
        "",
        "error: add.onnx: not the model that the artifact was built from; give that one by --model\n",
    )
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert cli("bench", built) == (
        2,
        "",
        "error: --vs onnxruntime: onnxruntime not installed; pip install 'qcompile[peers]'\n",
    )


def test_interrupted_build_exits_with_130(cli, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(qc, "import_onnx", interrupted)
    assert cli("build", "m.onnx", "-o", tmp_path / "out") == (
        130,
        "",
        "error: interrupted; nothing was left half-written\n",
    )
    assert not list(tmp_path.iterdir())


def test_sigterm_cleans_up_as_ctrl_c_does(cli, tmp_path, monkeypatch):
    def ended(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(qc, "import_onnx", ended)
    code, _, err = cli("build", "m.onnx", "-o", tmp_path / "out")
    assert (code, err) == (143, "error: interrupted; nothing was left half-written\n")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("name", "where"), [(None, "a disk"), ("x.so", "x.so: its disk")])
def test_a_full_disk_is_no_defect(cli, tmp_path, monkeypatch, name, where):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", name)

    monkeypatch.setattr(qc, "import_onnx", full)
    code, _, err = cli("build", "m.onnx", "-o", tmp_path / "out")
    assert code == 2 and err.startswith(f"error: {where} is full; free some space (temporary files go to ")


def test_a_defect_is_one_line_and_a_traceback_on_demand(cli, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(qc, "import_onnx", broken)
    line = "error: ZeroDivisionError: a; this is a defect of qcompile (-v shows where)\n"
    assert cli("build", "m.onnx", "-o", tmp_path / "out") == (1, "", line)
    code, out, err = cli("build", "m.onnx", "-o", tmp_path / "out", "-v")
    assert (code, out) == (1, "") and err.startswith("Traceback") and err.endswith(line)


def test_as_a_program(tmp_path):
    """Through the interpreter: exit codes reach the shell, and a reader that goes away is no error."""
    program = [sys.executable, "-c", "from qcompile.cli import main; main()"]
    done = subprocess.run([*program, "run", tmp_path / "no"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: ")
    piped = subprocess.Popen([*program, "targets"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    piped.stdout.close()
    assert piped.stderr.read() == b""
    assert piped.wait() == 0
