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
from qcompile.cli import main
from qcompile.package import package
from qcompile.runtime.emulate import launcher
from qcompile.targets.select import select_target
from tests.emulation import skip_without
from tests.frontend.onnx_models import model, node, weights
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


@here
def test_unpacked_it_runs(built, tmp_path):
    place = unpacked(package(built, tmp_path / "add.tar.gz"), tmp_path / "elsewhere")
    assert place.name == "add"
    assert "./run . input0.bin output0.bin" in (place / "README.md").read_text()
    X.tofile(place / "input0.bin")
    clean = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["./run", ".", "--repeat", "3", "input0.bin", "output0.bin"],
        cwd=place,
        env=clean,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("3 calls, the fastest took ")
    np.testing.assert_array_equal(np.fromfile(place / "output0.bin", np.float32), (X + handmade.WEIGHTS).reshape(-1))


@here
def test_from_python(built, tmp_path):
    place = unpacked(package(built, tmp_path / "add.tar.gz"), tmp_path / "elsewhere")
    np.savez(place / "x.npz", x=X)
    done = subprocess.run([sys.executable, "run.py", "x.npz", "y.npz"], cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "y float32 (1, 64) largest at 63\n")
    np.testing.assert_array_equal(np.load(place / "y.npz")["y"], X + handmade.WEIGHTS)


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
    ("changes", "out", "said"),
    [
        ({}, "add.zip", "add.zip: the name of a package ends in .tar.gz"),
        ({}, "no/such/add.tar.gz", "no/such/add.tar.gz: cannot be written: No such file or directory"),
        (
            {"runtime_libraries": ("libextra.so",)},
            "add.tar.gz",
            "calls functions of TVM's runtime (libextra.so), which a package has not; "
            "run it where apache-tvm is installed",
        ),
    ],
)
def test_refusals(tmp_path, monkeypatch, changes, out, said):
    monkeypatch.chdir(tmp_path)
    path = handmade.build(tmp_path / "out", **changes).path
    with pytest.raises(qc.QCompileError) as caught:
        package(path, out)
    assert str(caught.value).endswith(said)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_package_for_arm_runs_under_an_emulator(tmp_path):
    target = select_target("arm")
    skip_without(target)
    proto = model([node("Gemm", "x w", "y", transB=1)], {"x": (2, 24)}, constants={"w": weights(20, 24)})
    imported = qc.import_onnx(proto)
    samples = np.random.default_rng(0).standard_normal((4, 24)).astype(np.float32)
    plan = qc.plan_uniform(imported, qc.calibrate(imported, {"x": samples}), "int8")
    path = qc.build(imported, plan, target, out=tmp_path / "out", tuning_records="none").path
    place = unpacked(package(path, tmp_path / "gemm.tar.gz"), tmp_path / "board")
    shutil.rmtree(path)
    spec = importlib.util.spec_from_file_location("run_of_the_package", place / "run.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    result = program.run({"x": samples[:2]}, tuple(launcher(target.triple, target.features)))
    want = samples[:2] @ weights(20, 24).T
    assert np.abs(result["y"] - want).max() < 0.05 * np.abs(want).max()
    too_old = tuple(launcher(target.triple, ()))
    with pytest.raises(subprocess.CalledProcessError):
        program.run({"x": samples[:2]}, too_old)
