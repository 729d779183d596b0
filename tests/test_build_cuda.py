"""Builds for GPUs, on a machine without one: what is in the artifact, and what is said of what is not there."""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile

import numpy as np
import pytest
from typer.testing import CliRunner

import qcompile as qc
from qcompile.artifact import files_of, open_artifact
from qcompile.cli.app import app
from qcompile.package import package
from qcompile.runtime.emulate import Emulator
from qcompile.targets.cuda.rows import ROWS
from tests.building import cnn, files, plan_of
from tests.disassembly import disassembled
from tests.e2e.test_w4a8 import convolutions, planned

pytestmark = pytest.mark.usefixtures("cuda_compiler")

(ROW,) = ROWS


@pytest.fixture(scope="module")
def imported():
    return qc.import_onnx(cnn(2))


@pytest.fixture(scope="module")
def plan(imported):
    return plan_of(imported)


@pytest.fixture(scope="module")
def artifact(imported, plan, tmp_path_factory):
    return qc.build(imported, plan, "cuda", out=tmp_path_factory.mktemp("built") / "a")


def modules(artifact) -> dict[str, bytes]:
    with zipfile.ZipFile(artifact.path / "model.cubins") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_architecture_has_its_machine_code(artifact):
    held = modules(artifact)
    assert list(held) == [f"{arch}.cubin" for arch in ROW.architectures] + ["compute_90.ptx"]
    for arch in ROW.architectures:
        assert held[f"{arch}.cubin"].startswith(b"\x7fELF") and arch.encode() in held[f"{arch}.cubin"]


def test_the_artifact_is_whole(artifact):
    assert sorted(files(artifact)) == sorted(files_of(artifact.manifest))
    assert open_artifact(artifact.path).manifest == artifact.manifest
    assert list(artifact.manifest.launches) == list(ROW.architectures)
    assert {len(launches) for launches in artifact.manifest.launches.values()} == {len(artifact.manifest.calls)}


def test_one_architecture(imported, plan, tmp_path):
    """Twice, and equal to the byte."""
    built, again = (qc.build(imported, plan, "cuda:sm_80", out=tmp_path / name) for name in "ab")
    assert list(modules(built)) == ["sm_80.cubin"] and built.manifest.target == "cuda:sm_80"
    assert files(built) == files(again)


def test_products_are_those_of_tensor_cores(artifact, tmp_path):
    """And depthwise ones of dp4a; nothing lies in local memory."""
    for arch, product in (("sm_75", "IMMA.8816.U8.S8"), ("sm_80", "IMMA.16832.U8.S8"), ("sm_90", "IMMA.16832.U8.S8")):
        by_kernel = disassembled(modules(artifact)[f"{arch}.cubin"], tmp_path)
        assert product in by_kernel["conv2d_0"] and product in by_kernel["dense_0"]
        assert "IDP.4A.U8.S8" in by_kernel["depthwise_conv2d_0"]
        assert not any(re.search(r"\b(LDL|STL)\b", code) for code in by_kernel.values())
        if arch != "sm_75":
            assert "LDGSTS" in by_kernel["conv2d_0"] and "LDSM" in by_kernel["conv2d_0"]


def test_kernels_keep_within_every_architecture(artifact):
    for launch in (launch for launches in artifact.manifest.launches.values() for launch in launches):
        assert launch.shared <= 48 << 10 and launch.block <= 1024 and 0 < launch.grid < 2**31


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", ["run", "bench"])
def test_without_a_driver_one_sentence_says_so(artifact, command, monkeypatch, tmp_path):
    from qcompile.runtime import driver

    monkeypatch.setattr(driver, "LIBRARY", "libcuda-of-nowhere.so")
    with pytest.raises(qc.QCompileError, match="^this machine has no NVIDIA driver .libcuda.so.1.; run it on"):
        CliRunner().invoke(app, [command, str(artifact.path)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--target", "cuda:sm_91"], "no architecture 'sm_91'; did you mean 'sm_90'?"),
        (["--target", "cuda", "--threads", "2"], "cuda: threads are of a CPU; leave --threads out"),
        (
            ["--target", "cuda", "--precision", "fp8_e4m3"],
            "cuda: fp8_e4m3 needs the Tensor Cores of sm_89 or newer, and this build is for sm_75, sm_80, sm_86; give "
            "--target cuda:sm_89,sm_90, or another format",
        ),
        (
            ["--target", "cuda:sm_80", "--precision", "mixed", "--formats", "int8,fp8_e4m3", "--size-budget", "1MB"],
            "cuda:sm_80: fp8_e4m3 needs the Tensor Cores of sm_89 or newer, and this build is for sm_80; give "
            "--target cuda:sm_89, or another format",
        ),
        (
            ["--target", "cuda", "--trials", "5"],
            "--trials: a build for cuda does not search; run 'qcompile tune' where there is a GPU",
        ),
    ],
)
def test_what_gpus_do_not_have_is_refused_before_the_work(options, reason, tmp_path):
    result = run("build", "model.onnx", *options, "-o", str(tmp_path / "out"))
    assert reason in str(result.exception) and not (tmp_path / "out").exists()


def test_neither_packages_nor_emulators_take_it(artifact, tmp_path):
    with pytest.raises(qc.QCompileError, match="cuda"):
        package(artifact.path, tmp_path / "a.tar.gz")
    with pytest.raises(qc.QCompileError, match="GPUs are not emulated here; run it on a machine that has one"):
        Emulator(artifact.path)


def test_other_commands_name_cpus_alone():
    with pytest.raises(qc.QCompileError, match="cuda is a GPU; this works for CPU targets alone so far"):
        qc.select_target("cuda")


def test_targets_lists_it():
    listed = json.loads(run("targets", "--json").stdout)["targets"]
    assert [t["name"] for t in listed][-1] == "cuda"


def test_a_machine_without_a_compiler_is_told_what_to_install(imported, plan, monkeypatch, tmp_path):
    def missing():
        raise qc.QCompileError("no CUDA compiler found", remedy="install one: pip install 'qcompile[cuda]'")

    monkeypatch.setattr(sys.modules["qcompile.build"], "find_compiler", missing)
    with pytest.raises(qc.QCompileError, match="no CUDA compiler found"):
        qc.build(imported, plan, "cuda", out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_program_is_dumped(imported, plan, tmp_path):
    qc.build(imported, plan, "cuda:sm_90", out=tmp_path / "a", dump_ir=tmp_path / "ir")
    assert ") conv2d_0(const u8* __restrict__ x, " in (tmp_path / "ir/kernels_sm_90.cu").read_text()


def test_an_archive_is_readable(artifact):
    with zipfile.ZipFile(io.BytesIO((artifact.path / "model.cubins").read_bytes())) as archive:
        assert archive.testzip() is None and np.all([i.date_time[0] == 1980 for i in archive.infolist()])


FLOATS = {  # format -> its kernels, and their instructions by architecture
    "fp32": ("conv2d_f32_0", {"sm_75": "FFMA", "sm_80": "HMMA.1688.F32.TF32"}),
    "bf16": ("conv2d_bf16_0", {"sm_75": "FFMA", "sm_80": "HMMA.16816.F32.BF16"}),
    "half": ("conv2d_f16_0", {"sm_75": "HMMA.1688.F32", "sm_80": "HMMA.16816.F32"}),
    "fp8_e4m3": ("conv2d_e4m3_0", {"sm_89": "QMMA.16832.F32.E4M3.E4M3", "sm_90": "HMMA.16816.F32"}),
    "fp8_e5m2": ("conv2d_e5m2_0", {"sm_89": "QMMA.16832.F32.E5M2.E5M2"}),
}


@pytest.mark.parametrize("precision", FLOATS)
def test_products_of_floats_are_those_of_tensor_cores(precision, imported, tmp_path):
    kernel, products = FLOATS[precision]
    plan = qc.plan_uniform(imported, None, precision)
    held = modules(qc.build(imported, plan, f"cuda:{','.join(products)}", out=tmp_path / "a"))
    for name, product in products.items():
        by_kernel = disassembled(held[f"{name}.cubin"], tmp_path)
        assert product in by_kernel[kernel]
        assert not any(re.search(r"\b(LDL|STL)\b", code) for code in by_kernel.values())


def test_int4_weights_are_multiplied_on_tensor_cores(tmp_path):
    imported = qc.import_onnx(convolutions())
    plan = planned(imported)
    held = modules(qc.build(imported, plan, "cuda:sm_75,sm_90", out=tmp_path / "a"))
    for name, product in (("sm_75", "IMMA.8816.U8.S8"), ("sm_90", "IMMA.16832.U8.S8")):
        by_kernel = disassembled(held[f"{name}.cubin"], tmp_path)
        assert product in by_kernel["conv2d_int4_0"]
        assert not any(re.search(r"\b(LDL|STL)\b", code) for code in by_kernel.values())


def test_halves_are_multiplied_where_a_cpu_widens_them(tmp_path):
    (tmp_path / "model.onnx").write_bytes(cnn(2).SerializeToString())
    told = run(
        "build",
        str(tmp_path / "model.onnx"),
        "--precision",
        "fp16",
        "--target",
        "cuda:sm_80",
        "-o",
        str(tmp_path / "a"),
    )
    assert told.exit_code == 0 and "half" in told.stdout


def test_a_plan_with_a_format_that_the_architecture_lacks_is_refused_by_layer(imported, tmp_path):
    plan = qc.plan_uniform(imported, None, "fp8_e5m2")
    with pytest.raises(
        qc.QCompileError, match="^conv0: fp8_e5m2 needs the Tensor Cores of sm_89 or newer, and this build"
    ):
        qc.build(imported, plan, "cuda:sm_80", out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
