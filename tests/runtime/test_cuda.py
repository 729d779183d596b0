"""Artifacts of GPU code, loaded and run through a driver that emulates the kernels."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import qcompile as qc
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.reference import interpreter
from qcompile.runtime import CudaRunner, driver
from qcompile.runtime.cuda import choose_image
from qcompile.runtime.device_array import seen
from qcompile.targets.cuda.emulate import emulated_library
from tests.building import cnn, plan_of, samples

FAKE = Path(__file__).with_name("fake_cuda.cc")


@pytest.fixture(scope="module")
def built(tmp_path_factory, cuda_compiler):
    """(imported model, integer form, artifact, the library of a driver for it)."""
    folder = tmp_path_factory.mktemp("cuda")
    imported = qc.import_onnx(cnn(2))
    plan = plan_of(imported)
    form = run_passes(imported.module, form_passes(plan, imported.layers))
    artifact = qc.build(imported, plan, "cuda:sm_90", out=folder / "a")
    library = folder / "libfakecuda.so"
    emulated_library(lower_cuda(form)[0].source + FAKE.read_text(), library, optimize=0)
    return imported, form, artifact, library


@pytest.fixture
def fake(built, monkeypatch):
    monkeypatch.setattr(driver, "LIBRARY", str(built[-1]))
    driver.open_driver.cache_clear()
    yield
    driver.open_driver.cache_clear()


def test_it_computes_what_the_oracle_computes(built, fake):
    imported, form, artifact, _ = built
    runner = qc.load(artifact.path)
    assert isinstance(runner, CudaRunner) and runner.device_name == "emulated"
    for feeds in samples(imported, 2, seed=7):
        np.testing.assert_array_equal(runner.run(feeds)["y"], interpreter.run(form, feeds)["y"])


def test_inputs_that_do_not_fit_are_refused(built, fake):
    runner = qc.load(built[2].path)
    with pytest.raises(qc.QCompileError, match="input x: shape"):
        runner.run({"x": np.zeros((1, 3, 12, 12), np.float32)})


@dataclass(frozen=True)
class Foreign:
    """Another library's array, of the host's memory, which the fake driver's GPU shares."""

    array: np.ndarray

    @property
    def __cuda_array_interface__(self):
        about = self.array.__array_interface__
        return {key: about[key] for key in ("shape", "typestr", "data", "strides", "version")}


def aligned(shape, dtype=np.float32) -> np.ndarray:
    return qc.aligned_empty(shape, dtype)


def test_arrays_of_others_are_bound_without_a_copy(built, fake):
    imported, form, artifact, _ = built
    (feeds,) = samples(imported, 1, seed=8)
    x, y = aligned((2, 3, 12, 12)), aligned((2, 5))
    binding = qc.load(artifact.path).bind({"x": Foreign(x)}, {"y": Foreign(y)})
    for sign in (1, -1):
        x[...] = sign * feeds["x"]
        binding()
        np.testing.assert_array_equal(y, interpreter.run(form, {"x": x.copy()})["y"])


def test_arrays_that_cannot_be_bound(built, fake):
    runner = qc.load(built[2].path)
    with pytest.raises(qc.QCompileError, match="input x: not an array in the GPU's memory; bind a torch or cupy"):
        runner.bind({"x": np.zeros((2, 3, 12, 12), np.float32)})
    with pytest.raises(qc.QCompileError, match="input x: not C-contiguous on a 16-byte boundary"):
        runner.bind({"x": Foreign(aligned((2, 12, 12, 3)).transpose(0, 3, 1, 2))})


def test_results_go_out_by_dlpack(built, fake):
    imported, form, artifact, _ = built
    (feeds,) = samples(imported, 1, seed=9)
    binding = qc.load(artifact.path).bind()
    y = binding.outputs["y"]
    assert y.__dlpack_device__() == (2, 0)

    class Capsule:  # an object that speaks DLPack alone
        __dlpack__, __dlpack_device__ = y.__dlpack__, y.__dlpack_device__

    found = seen(Capsule())
    assert (found.pointer, found.shape, found.dtype, found.contiguous) == (y.pointer, (2, 5), np.float32, True)
    np.testing.assert_array_equal(y.numpy().shape, (2, 5))


def test_memory_is_given_back(built, fake):
    import ctypes

    allocated = ctypes.CDLL(str(built[-1])).fake_allocated
    before = allocated()
    runner = qc.load(built[2].path)
    assert allocated() == before + 4  # weights, workspace, input, output
    del runner
    assert allocated() == before


def test_a_profile_has_every_kernel(built, fake):
    imported, _, artifact, _ = built
    profile = qc.load(artifact.path).profile(samples(imported, 1)[0])
    assert [kernel.kernel for kernel in profile.kernels] == [call.kernel for call in artifact.manifest.calls]
    assert all(kernel.microseconds == 1000 for kernel in profile.kernels)  # the fake clock's


def test_an_architecture_runs_code_of_its_generation(tmp_path):
    library = tmp_path / "a.cubins"
    with zipfile.ZipFile(library, "w") as archive:
        for name in ("sm_75.cubin", "sm_80.cubin", "sm_86.cubin", "compute_90.ptx"):
            archive.writestr(name, name)
    assert choose_image(library, (8, 0), "out") == ("sm_80", b"sm_80.cubin")
    assert choose_image(library, (8, 9), "out") == ("sm_86", b"sm_86.cubin")
    assert choose_image(library, (12, 0), "out") == ("compute_90", b"compute_90.ptx\0")
    with pytest.raises(qc.QCompileError, match="out: built for sm_75, sm_80, sm_86, compute_90, and this GPU is sm_70"):
        choose_image(library, (7, 0), "out")


def test_code_that_is_newer_than_the_driver(fake):
    broken = driver.open_driver(driver.LIBRARY)
    with pytest.raises(qc.QCompileError, match="cannot load the code: 200; it knows CUDA 12.8; update it, or build"):
        broken.load(b"not a cubin, which the fake driver takes for anything else")


def test_a_driver_without_a_gpu(built, fake, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_NO_DEVICE", "1")
    with pytest.raises(qc.QCompileError, match="this machine has an NVIDIA driver, but no GPU that it can use; run"):
        qc.load(built[2].path)


def test_a_machine_without_a_driver(built, monkeypatch):
    monkeypatch.setattr(driver, "LIBRARY", "libcuda-of-nowhere.so")
    with pytest.raises(qc.QCompileError, match="this machine has no NVIDIA driver .*; run it on a machine with"):
        qc.load(built[2].path)


def test_running_takes_numpy_and_the_driver_alone():
    check = "import qcompile.runtime.cuda, sys; print(sorted({'tvm', 'tvm_ffi', 'onnx', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"
