"""``qcompile build`` from an ONNX file to answers, and what it leaves behind when it is stopped."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import qcompile as qc
from qcompile.artifact import FILES
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.select import can_run
from qcompile.tune.log import TuningLog
from qcompile.tune.tasks import tasks_of
from tests.tune.recorded import record, write

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for x86-64")
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
SAMPLES = RNG.standard_normal((6, 3, 8, 8)).astype(np.float32)
PROGRAM = [sys.executable, "-c", "from qcompile.cli import main; main()"]
NOTE = "note: dynamic batch of x fixed to 1 (change it with --input-shapes x:[1,3,8,8])\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """model.onnx (Conv, Relu, dynamic batch) and calib.npz."""
    folder = tmp_path_factory.mktemp("model")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), helper.make_node("Relu", ["c"], ["y"], "relu")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4, 6, 6])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "model.onnx")
    np.savez(folder / "calib.npz", x=SAMPLES)
    return folder


@pytest.fixture
def cli(cli, folder, monkeypatch):
    """Beside model.onnx and calib.npz."""
    monkeypatch.chdir(folder)
    return cli


def expected(x: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    return np.maximum(np.einsum("nchwij,ocij->nohw", windows, WEIGHT), 0)


def test_int8_and_fp32(cli, tmp_path):
    """Both run, the int8 one within its resolution, and the summary tells them apart."""
    error = {}
    for precision in ("int8", "fp32"):
        out = tmp_path / precision
        data = ["--calib_data", "calib.npz"] if precision == "int8" else []
        code, text, err = cli(
            "build", "model.onnx", f"--{precision}", "--target", "x86-avx2", "-o", out, "--json", *data
        )
        assert (code, err) == (0, NOTE)
        summary = json.loads(text)
        assert summary["artifact"] == str(out) and summary["target"] == "x86-avx2"
        assert set(summary["layers"]) == {precision}
        y = qc.load(out).run({"x": SAMPLES[:1]})["y"]
        error[precision] = np.abs(y - expected(SAMPLES[:1])).max()
    assert error["fp32"] < 1e-4 < error["int8"] < 0.2


def test_a_batch_by_input_shapes_and_a_plan_again(cli, tmp_path):
    code, _, err = cli(
        "build", "model.onnx", "--target", "x86-avx2", "--calib-data", "calib.npz", "-o", tmp_path / "a",
        "--input-shapes", "x:[2,3,8,8]", "--num-samples", "4", "--calib-method", "percentile", "--percentile", "99",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert qc.load(tmp_path / "a").inputs[0].shape == (2, 3, 8, 8)
    code, _, _ = cli(
        "build", "model.onnx", "--target", "x86-avx2", "--plan", tmp_path / "a/plan.json", "-o", tmp_path / "b",
        "--input-shapes", "x:[2,3,8,8]",
    )  # fmt: skip
    assert code == 0
    for name in ("plan.json", "weights.bin", "model.so", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_random_data_is_shouted_about(cli, tmp_path):
    code, out, err = cli("build", "model.onnx", "--target", "x86-avx2", "-o", tmp_path / "out")
    assert code == 0 and "* WARNING: no calibration data was given, so RANDOM NOISE stands in for it." in err
    assert out.splitlines()[-1].startswith(f"artifact   {tmp_path / 'out'} (")


def test_excluded_nodes_stay_in_float(cli, tmp_path):
    code, out, _ = cli(
        "build", "model.onnx", "--target", "x86-avx2", "--calib-data", "calib.npz", "-o", tmp_path / "out",
        "--exclude-nodes", "conv", "--json",
    )  # fmt: skip
    assert code == 0 and "int8" not in json.loads(out)["layers"]


def test_integer_inputs_and_outputs(cli, tmp_path):
    code, _, _ = cli(
        "build", "model.onnx", "--target", "x86-avx2", "--calib-data", "calib.npz", "-o", tmp_path / "out",
        "--integer-io",
    )  # fmt: skip
    assert code == 0
    runner = qc.load(tmp_path / "out")
    x, y = runner.inputs[0], runner.outputs[0]
    assert (x.dtype, y.dtype) == ("uint8", "uint8")
    codes = np.clip(np.rint(SAMPLES[:1] / x.quantization.scale) + x.quantization.zero_point, 0, 255).astype(np.uint8)
    real = (runner.run({"x": codes})["y"].astype(np.float32) - y.quantization.zero_point) * y.quantization.scale
    assert np.abs(real - expected(SAMPLES[:1])).max() < 0.2


def logged(folder: Path, file: Path) -> Path:
    """A log with a schedule of the model's one layer that is not the default."""
    model = qc.import_onnx(folder / "model.onnx")
    target = qc.select_target("x86-avx2")
    (task,) = tasks_of(model, qc.plan_uniform(model, None, "fp32", target), target)
    template = TEMPLATES[task.workload.operator]
    default = template.default(task.workload, target)
    knobs = next(k for k in template.space(task.workload, target) if k != default)
    return write(file, record(task.workload, target, knobs))


def test_schedules_are_from_the_logs_or_the_manifest(cli, folder, tmp_path):
    log = logged(folder, tmp_path / "log.db")
    build = ["build", "model.onnx", "--target", "x86-avx2", "--fp32", "-o"]
    code, out, _ = cli(*build, tmp_path / "plain", "--tuning-records", "none")
    assert code == 0 and "schedules  1 default\n" in out
    code, out, _ = cli(*build, tmp_path / "tuned", "--tuning-records", log)
    assert code == 0 and "schedules  1 tuned\n" in out
    code, out, _ = cli(*build, tmp_path / "locked", "--locked", tmp_path / "tuned", "--json")
    summary = json.loads(out)
    assert code == 0 and summary["schedules"] == {"tuned": 1}
    (row,) = summary["knobs"]
    assert (row["layer"], row["schedule"]) == ("conv", "tuned") and row["knobs"]["rows"] == 1
    same = {name: (tmp_path / "tuned" / name).read_bytes() for name in FILES}
    assert {name: (tmp_path / "locked" / name).read_bytes() for name in FILES} == same
    assert (tmp_path / "plain/model.so").read_bytes() != same["model.so"]
    code, out, _ = cli("inspect", tmp_path / "locked", "--layers")
    (header,) = [line.split() for line in out.splitlines() if line.startswith(" layer")]
    assert code == 0 and "schedule" in header and "schedules  1 tuned\n" in out


def test_a_log_on_a_read_only_place(cli, folder, tmp_path):
    log = logged(folder, tmp_path / "product/log.db")
    log.chmod(0o444)
    log.parent.chmod(0o555)
    code, out, _ = cli(
        "build", "model.onnx", "--target", "x86-avx2", "--fp32", "-o", tmp_path / "out", "--tuning-records", log
    )
    log.parent.chmod(0o755)
    assert code == 0 and "schedules  1 tuned\n" in out and os.listdir(log.parent) == ["log.db"]


def test_trials_tune_what_is_missing(cli, tmp_path):
    """Into the log that is named; the next build needs none."""
    if not can_run(qc.select_target("x86-avx2")):
        pytest.skip("measures on this machine")
    build = ["build", "model.onnx", "--target", "x86-avx2", "--fp32", "--tuning-records", tmp_path / "new.db", "-o"]
    code, out, _ = cli(*build, tmp_path / "a", "--trials", "2")
    assert code == 0 and "schedules  1 tuned\n" in out
    assert 2 <= len(TuningLog.open(tmp_path / "new.db", read_only=True)) <= 3
    code, out, _ = cli(*build, tmp_path / "b")
    assert code == 0 and (tmp_path / "b/model.so").read_bytes() == (tmp_path / "a/model.so").read_bytes()


def test_the_first_trials_of_a_user_make_the_log(cli, tmp_path, monkeypatch):
    if not can_run(qc.select_target("x86-avx2")):
        pytest.skip("measures on this machine")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    code, _, err = cli("build", "model.onnx", "--target", "x86-avx2", "--fp32", "--trials", "2", "-o", tmp_path / "a")
    assert code == 0, err
    assert (tmp_path / "home/qcompile/tuning.db").exists()


def test_ir_is_dumped_in_order(cli, tmp_path):
    code, _, _ = cli(
        "build", "model.onnx", "--target", "x86-avx2", "--fp32", "-o", tmp_path / "out", "--dump-ir", tmp_path / "ir"
    )
    assert code == 0
    numbers = [int(p.name.split("_")[0]) for p in sorted((tmp_path / "ir").iterdir())]
    assert numbers == list(range(len(numbers))) and len(numbers) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calib-data", "no.npz"], "no.npz"),
        (["--plan", "model.onnx"], "model.onnx"),
        (["--calib-data", "calib.npz", "--exclude-nodes", "cnov"], "conv"),
        (["--input-shapes", "x:[1,3,9,8]"], "input x: --input-shapes gives 1x3x9x8, the model has Nx3x8x8"),
        (["--calib-data", "calib.npz", "--num-samples", "0"], "0 calibration samples asked for"),
        (["--calib-method", "max"], "minmax"),
        (["--percentile", "99"], "--percentile: ranges are chosen by error; give --calib-method percentile, too"),
        (["--calib-method", "percentile", "--percentile", "101"], "--percentile: 101 percent"),
        (["--fp32", "--integer-io"], "--integer-io: layers in fp32 read and write floats"),
        (["--plan", "p.json", "--calib-data", "calib.npz"], "--plan and --calib-data contradict each other"),
        (["--plan", "p.json", "--fp32"], "--plan and --precision fp32 contradict each other"),
        (["--threads", "0"], "--threads"),
        (["--fp32", "--dump-ir", "calib.npz"], "calib.npz: it is a file; name a folder"),
        (["--tuning-records", "no.db"], "no.db: no such tuning log"),
        (["--tuning-records", "calib.npz"], "calib.npz: not a tuning log"),
        (["--tuning-records", "none", "--trials", "3"], "tuning needs a log to write to"),
        (["--precision", "w4a8", "--int8"], "--int8 and w4a8 contradict each other"),
        (["--group-size", "32"], "only weights that are planned as int4 have groups"),
        (["--precision", "w4a8", "--group-size", "20"], "--group-size 20 is not a multiple of 8"),
        (["--locked", "no"], "no: No such file"),
        (["--locked", "calib.npz"], "calib.npz"),
        (["--locked", "a", "--tuning-records", "b"], "--locked and --tuning-records contradict each other"),
        (["--locked", "a", "--trials", "3"], "--locked and --trials contradict each other"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(cli, tmp_path, arguments, message):
    code, out, err = cli("build", "model.onnx", "-o", tmp_path / "out", *arguments)
    last = err.replace(NOTE, "")
    assert (code, out) == (2, "") and last.startswith("error: ") and last.count("\n") == 1 and message in last
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_models(cli, tmp_path):
    for name, content in (
        ("text.onnx", b"hello"),
        ("empty.onnx", b""),
        ("cut.onnx", Path("model.onnx").read_bytes()[:99]),
    ):
        (tmp_path / name).write_bytes(content)
        code, out, err = cli("build", tmp_path / name, "-o", tmp_path / "out")
        assert (code, out) == (2, "") and err.startswith(f"error: {tmp_path / name}: ") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_the_older_artifact(cli, folder, tmp_path):
    """Signals at several moments of a second build: code 130, one line, and the first build as it was."""
    build = ["build", "model.onnx", "--target", "x86-avx2", "--calib-data", "calib.npz", "-o", str(tmp_path / "out")]
    assert cli(*build)[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    for wait in (0.0, 0.2):
        process = subprocess.Popen([*PROGRAM, *build], cwd=folder, stderr=subprocess.PIPE, text=True)
        assert process.stderr.readline() == NOTE  # the model is imported; calibration and compilation follow
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "error: interrupted; nothing was left half-written\n"
        assert process.wait() == 130
        assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
        assert os.listdir(tmp_path) == ["out"]


def test_a_full_disk_is_one_line(folder, tmp_path):
    """On a file system of 20 KB, where the first write that does not fit is LLVM's or the linker's."""
    (tmp_path / "disk").mkdir()
    inner = " && ".join(
        [
            f"mount -t tmpfs -o size=20k none {tmp_path}/disk",
            f"echo mounted && {sys.executable} -c 'from qcompile.cli import main; main()' "
            f"build model.onnx --fp32 --target x86-avx2 -o {tmp_path}/disk/out; echo $?; ls -A {tmp_path}/disk",
        ]
    )
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", inner], cwd=folder, capture_output=True, text=True, check=False
    )
    if not done.stdout.startswith("mounted"):
        pytest.skip("may not mount a small file system here")
    assert done.stdout == "mounted\n2\n"
    assert done.stderr.replace(NOTE, "") == (
        f"error: {tmp_path}/disk/out: cannot be written: No space left on device; free some space and build again\n"
    )


def test_each_step_of_int8_can_be_switched(cli, tmp_path):
    def plan(*options: str) -> qc.QuantPlan:
        assert cli("build", "model.onnx", "--calib-data", "calib.npz", "-o", tmp_path / "out", *options)[0] == 0
        return qc.QuantPlan.load(tmp_path / "out" / "plan.json")

    usual, bare = plan(), plan("--no-bias-correction", "--calib-method", "auto", "--no-learn-rounding", "--no-equalize")
    assert (usual.method, bare.method) == ("error", "auto")
    assert any(tensor.shift for tensor in usual.tensors.values())
    assert not any(tensor.shift or tensor.moves for tensor in bare.tensors.values())
    assert not usual.channel_scales  # one layer, nothing between layers
