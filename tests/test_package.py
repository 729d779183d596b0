"""A package runs in an empty folder, by its own programs alone."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import qcompile as qc
from benchmarks.arm.root import PYTHON, ROOT
from qcompile.cli import main
from qcompile.package import package
from qcompile.runtime.emulate import launcher
from qcompile.runtime.executable import SOURCES, runner_for
from qcompile.targets.rows import ROWS
from qcompile.targets.select import select_target
from tests.emulation import skip_without
from tests.frontend.onnx_models import model, node, run_onnxruntime, weights
from tests.runtime import handmade

here = pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("cc"), reason="the handmade library is for x86-64; needs cc"
)
X = np.linspace(-3, 3, 64, dtype=np.float32).reshape(handmade.SHAPE)


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (place,) = folder.iterdir()
    return place


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return handmade.build(tmp_path_factory.mktemp("built") / "out").path


@pytest.fixture(scope="module")
def place(built, tmp_path_factory):
    """The package, unpacked into an empty folder, with inputs x.npz and input0.bin."""
    folder = tmp_path_factory.mktemp("elsewhere")
    return with_inputs(unpacked(package(built, folder / "add.tgz"), folder / "board"), {"x": X})


def with_inputs(place: Path, feed: dict[str, np.ndarray]) -> Path:
    np.savez(place / "x.npz", **feed)
    for number, array in enumerate(feed.values()):
        array.tofile(place / f"input{number}.bin")
    return place


def run(place: Path, *command: str) -> str:
    """Standard output of a program that sees nothing of this Python, and of this project no file but the package."""
    done = subprocess.run(command, cwd=place, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@here
@pytest.mark.parametrize("options", [(), ("--repeat", "3", "--threads", "2")])
def test_from_the_command_line(place, options):
    assert place.name == "add"
    assert "./run . input0.bin output0.bin" in (place / "README.md").read_text()
    said = run(place, "./run", ".", *options, "input0.bin", "output0.bin")
    assert said.startswith(f"{3 if options else 1} calls, the fastest took ")
    np.testing.assert_array_equal(np.fromfile(place / "output0.bin", np.float32), (X + handmade.WEIGHTS).reshape(-1))


@here
def test_from_python(place):
    assert run(place, sys.executable, "run.py", "x.npz", "y.npz") == "y float32 (1, 64) largest at 63\n"
    np.testing.assert_array_equal(np.load(place / "y.npz")["y"], X + handmade.WEIGHTS)


@here
def test_from_python_on_more_samples(place):
    np.savez(place / "x3.npz", x=np.concatenate([X, X + 1, X]))
    assert run(place, sys.executable, "run.py", "x3.npz", "y3.npz").startswith("y float32 (3, 64) ")
    want = np.concatenate([X, X + 1, X]) + handmade.WEIGHTS.astype(np.float32)
    np.testing.assert_array_equal(np.load(place / "y3.npz")["y"], want)
    for feed, said in (
        ({"x": X[0]}, "x is float32 of (64,), the model has float32 of (1, 64)"),
        ({"x": X, "z": np.concatenate([X, X])}, "the inputs are x; wrong or missing: z"),
    ):
        np.savez(place / "wrong.npz", **feed)
        done = subprocess.run([sys.executable, "run.py", "wrong.npz"], cwd=place, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, f"error: {said}\n")


PROGRAM = """
import gc
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from run import Model
model, x = Model(threads=2), np.load("x.npz")["x"]
place = model.inputs["x"]
y = model.run({"x": x})["y"]
with ThreadPoolExecutor(4) as pool:
    for number, result in enumerate(pool.map(lambda n: model.run({"x": x + np.float32(n)}), range(200))):
        assert (result["y"] == x + np.float32(number) + np.arange(64, dtype=np.float32)).all()
place[...] = x + 1
model.call()
assert (y + 1 == model.outputs["y"]).all()  # y is a copy, the others are not
del model
gc.collect()
assert (place == x + 1).all()  # holds the model's memory
for feed in {"x": x[0]}, {"x": x.astype(int)}, {}, {"x": x, "z": x}:
    try:
        Model().run(feed)
    except ValueError as error:
        print(error)
try:
    Model("nowhere")
except RuntimeError as error:
    print(error)
"""


@here
def test_from_python_in_ones_own_program(place):
    assert run(place, sys.executable, "-c", PROGRAM).splitlines() == [
        "x is float32 of (64,), the model has float32 of (1, 64)",
        "x is int64 of (1, 64), the model has float32 of (1, 64)",
        "the inputs are x; wrong or missing: x",
        "the inputs are x; wrong or missing: z",
        "nowhere/model.txt: No such file or directory",
    ]


@here
@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
def test_from_cpp(place):
    """By the command that the README of the package has."""
    (command,) = (line for line in (place / "README.md").read_text().splitlines() if line.startswith("    c++ "))
    run(place, "sh", "-c", f"{command} -Wall -Wextra -Werror -fsanitize=undefined")
    assert run(place, "./run++", ".", "input0.bin", "output1.bin") == ""
    np.testing.assert_array_equal(np.fromfile(place / "output1.bin", np.float32), (X + handmade.WEIGHTS).reshape(-1))
    done = subprocess.run(["./run++", "nowhere"], cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: nowhere/model.txt: No such file or directory\n")


@here
def test_threads_give_the_same_bits(tmp_path):
    """A loop of 64 steps, shared by as many threads as the model was built for, or as one asks for."""
    path = handmade.build(tmp_path / "out", threads=2).path
    place = with_inputs(unpacked(package(path, tmp_path / "add.tar.gz"), tmp_path / "board"), {"x": X})
    assert "threads 2" in (place / "model.txt").read_text().splitlines()
    for threads in "01235":
        run(place, "./run", ".", "--threads", threads, "--repeat", "500", "input0.bin", "output0.bin")
        np.testing.assert_array_equal(np.fromfile(place / "output0.bin", np.float32), (X + handmade.WEIGHTS)[0])


@here
def test_equal_artifacts_equal_bytes(built, tmp_path, monkeypatch):
    one = package(built, tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "b").mkdir()
    assert package(built, tmp_path / "b" / "a.tar.gz").read_bytes() == one


@here
def test_command(built, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["package", str(built), "-o", str(tmp_path / "add.tar.gz")])
    out, err = capsys.readouterr()
    assert (stopped.value.code, err) == (0, "") and out.startswith(f"package    {tmp_path}/add.tar.gz (")


@here
@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("add.zip", "add.zip: the name of a package ends in .tar.gz or .tgz"),
        ("no/such/add.tar.gz", "no/such/add.tar.gz: cannot be written: No such file or directory"),
    ],
)
def test_refusals(tmp_path, monkeypatch, out, said):
    monkeypatch.chdir(tmp_path)
    path = handmade.build(tmp_path / "out").path
    with pytest.raises(qc.QCompileError) as caught:
        package(path, out)
    assert str(caught.value).endswith(said)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@here
def test_what_has_no_library_for_a_cpu(built, tmp_path, monkeypatch):
    monkeypatch.setattr("qcompile.package.LIBRARY", "model.cubins")
    with pytest.raises(qc.QCompileError, match="built for x86-avx2, and packages are for CPUs; copy its folder, and"):
        package(built, tmp_path / "add.tar.gz")


@here
@pytest.mark.parametrize("target", ["x86-avx2", "native"])
def test_operators_that_tvm_calls_its_runtime_for(tmp_path, target):
    """Sorts, which are code of the model here."""
    dtypes = {"i": np.int64, "a": np.int64}
    nodes = [node("TopK", "x k", "v i", axis=1), node("ArgMax", "x", "a", axis=1, keepdims=0)]
    proto = model(nodes, {"x": (2, 30)}, ("v", "i", "a"), {"k": np.array([3])}, dtypes=dtypes)
    x = np.random.default_rng(0).permutation(60).astype(np.float32).reshape(2, 30)
    path = qc.build(qc.import_onnx(proto), target=target, out=tmp_path / "out", tuning_records="none").path
    place = with_inputs(unpacked(package(path, tmp_path / "topk.tar.gz"), tmp_path / "board"), {"x": x})
    run(place, sys.executable, "run.py", "x.npz", "y.npz")
    for name, want in zip(("v", "i", "a"), run_onnxruntime(proto, {"x": x}), strict=True):
        np.testing.assert_array_equal(np.load(place / "y.npz")[name], want)


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    """A package for ARM with dot products, unpacked, with inputs; its outputs in float32."""
    target = select_target("arm")
    skip_without(target)
    folder = tmp_path_factory.mktemp("arm")
    proto = model([node("Gemm", "x w", "y", transB=1)], {"x": (2, 24)}, constants={"w": weights(20, 24)})
    imported = qc.import_onnx(proto)
    samples = np.random.default_rng(0).standard_normal((4, 24)).astype(np.float32)
    plan = qc.plan_uniform(imported, qc.calibrate(imported, {"x": samples}), "int8")
    path = qc.build(imported, plan, target, out=folder / "out", tuning_records="none").path
    place = unpacked(package(path, folder / "gemm.tar.gz"), folder / "board")
    shutil.rmtree(path)
    return with_inputs(place, {"x": samples[:2]}), samples[:2] @ weights(20, 24).T


def close(result: np.ndarray, want: np.ndarray) -> bool:
    return np.abs(result.reshape(want.shape) - want).max() < 0.05 * np.abs(want).max()


def test_for_arm_from_the_command_line(arm):
    place, want = arm
    target = select_target("arm")
    command = ["./run", ".", "input0.bin", "output0.bin"]
    run(place, *launcher(target.triple, target.features), *command)
    assert close(np.fromfile(place / "output0.bin", np.float32), want)
    done = subprocess.run([*launcher(target.triple, ()), *command], cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: built for arm-dotprod, and this CPU lacks asimddp\n")


@pytest.mark.slow
def test_for_arm_from_cpp(arm):
    if not importlib.util.find_spec("ziglang"):
        pytest.skip("needs the ziglang package")
    place, want = arm
    (command,) = (line for line in (place / "README.md").read_text().splitlines() if line.startswith("    c++ "))
    compiler = f"{sys.executable} -m ziglang c++ -target aarch64-linux-musl -static"
    target = select_target("arm")
    cache = runner_for(target.triple).parent / "zig"
    caches = f"env ZIG_GLOBAL_CACHE_DIR={cache} ZIG_LOCAL_CACHE_DIR={cache}"
    run(place, "sh", "-c", command.replace("c++", f"{caches} {compiler}", 1))
    run(place, *launcher(target.triple, target.features), "./run++", ".", "input0.bin", "output1.bin")
    assert close(np.fromfile(place / "output1.bin", np.float32), want)


def test_for_arm_from_python(arm):
    """By a Python for ARM, which sees the package and its own files."""
    if not ROOT.exists():
        pytest.skip("needs a Python with numpy for arm64 (make arm-root)")
    place, want = arm
    target = select_target("arm")
    python = ["-E", f"PYTHONHOME={ROOT}/usr", "-E", f"PYTHONPATH={ROOT}/site", str(ROOT / PYTHON)]
    program = [*python, "run.py", "x.npz", "y.npz"]
    said = run(place, *launcher(target.triple, target.features), "-L", str(ROOT), *program)
    assert said.startswith("y float32 (2, 20) largest at ")
    assert close(np.load(place / "y.npz")["y"], want)
    too_old = [*launcher(target.triple, ()), "-L", str(ROOT), *program]
    done = subprocess.run(too_old, cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: built for arm-dotprod, and this CPU lacks asimddp\n")


@here
@pytest.mark.parametrize(
    ("name", "kept", "said"),
    [
        ("model.so", 40, "./model.so: not a shared library for x86_64"),
        ("model.so", 70, "./model.so: damaged"),
        ("model.so", 600, "./model.so: damaged"),
        ("weights.bin", 63, "./weights.bin: 63 bytes, not 64"),
        ("input0.bin", 8, "input0.bin: 8 bytes, not 256"),
        ("model.txt", 0, "./model.txt: not one of qcompile's"),
    ],
)
def test_what_is_damaged_is_said(place, tmp_path, name, kept, said):
    copy = shutil.copytree(place, tmp_path / "copy")
    (copy / name).write_bytes((place / name).read_bytes()[:kept])
    done = subprocess.run(["./run", ".", "input0.bin", "output0.bin"], cwd=copy, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")


@here
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs qemu-x86_64 (apt install qemu-user)")
@pytest.mark.parametrize(
    ("cpu", "features", "lacks"),
    [
        ("max", ("avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"), ""),
        ("Nehalem", ("sse4_2", "avx2"), "avx2"),
        ("max", ("avx2", "avx512f", "avx512_vnni"), "avx512f"),
        ("max", ("avx2", "avx_vnni"), "avx_vnni"),
        ("max", ("sse5",), "sse5"),
    ],
)
def test_for_another_x86(tmp_path, cpu, features, lacks):
    """What a CPU lacks is asked of itself: /proc/cpuinfo is the host's here."""
    path = handmade.build(tmp_path / "out", features=features).path
    place = with_inputs(unpacked(package(path, tmp_path / "add.tar.gz"), tmp_path / "board"), {"x": X})
    command = ["qemu-x86_64", "-cpu", cpu, "./run", ".", "input0.bin", "output0.bin"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    refusal = f"error: built for x86-avx2, and this CPU lacks {lacks}\n" if lacks else ""
    assert done.stderr == refusal


def test_features_of_every_target_are_known_to_the_runner():
    known = (SOURCES / "features.c").read_text()
    words = {word for row in ROWS for word in (*row.features, *(feature for feature, _ in row.optional))}
    assert {word for word in words if f'"{word}"' not in known} == set()
