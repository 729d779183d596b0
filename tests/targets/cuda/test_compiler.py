"""Machine code without a GPU: what is in it, and what is said where it cannot be made."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from qcompile.errors import QCompileError
from qcompile.targets.cuda import compiler
from qcompile.targets.cuda.compiler import Compiler, find_compiler, kernel_uses

SUM = 'extern "C" __global__ void sum(float* x, float* y) { y[threadIdx.x] += x[threadIdx.x] * 3.0f; }'


@pytest.mark.parametrize("arch", ["sm_75", "sm_90"])
def test_a_cubin_is_machine_code_of_its_architecture(cuda_compiler, arch):
    made = cuda_compiler.cubin(SUM, arch)
    assert made.code.startswith(b"\x7fELF") and arch.encode() in made.code
    assert made.kernels["sum"].registers > 0 and made.kernels["sum"].spills == made.kernels["sum"].stack == 0


def test_ptx_is_text(cuda_compiler):
    assert b".target sm_90" in cuda_compiler.ptx(SUM, "compute_90")


def test_products_are_rounded_before_they_are_added(cuda_compiler):
    assert not re.search(rb"\bfma\.", cuda_compiler.ptx(SUM, "compute_80"))


def test_the_same_bytes_every_time(cuda_compiler):
    assert cuda_compiler.cubin(SUM, "sm_80") == cuda_compiler.cubin(SUM, "sm_80")


def test_a_refusal_has_the_compilers_first_error(cuda_compiler):
    with pytest.raises(QCompileError, match="the CUDA compiler refused a kernel: .*undefined"):
        cuda_compiler.cubin('extern "C" __global__ void f() { undefined_name(); }', "sm_80")


def test_nvcc_serves_as_well():
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    made = Compiler("nvcc", Path(nvcc)).cubin(SUM, "sm_80")
    assert made.code.startswith(b"\x7fELF") and made.kernels["sum"].registers > 0


def test_nvcc_may_be_asked_for(monkeypatch):
    monkeypatch.setenv("QCOMPILE_CUDA_COMPILER", "nvcc")
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false" if name == "nvcc" else None)
    assert find_compiler.__wrapped__() == Compiler("nvcc (unknown)", Path("/bin/false"))


def test_what_to_install_where_there_is_no_compiler(monkeypatch):
    monkeypatch.setattr(compiler, "_nvrtc_library", lambda package: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(QCompileError, match=r"no CUDA compiler found .*; install one: pip install 'qcompile\[cuda\]'"):
        find_compiler.__wrapped__()


def test_what_ptxas_says_of_kernels():
    log = """ptxas info    : Compiling entry function 'a' for 'sm_80'
ptxas info    : Function properties for a
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 400 bytes cmem[0]
ptxas info    : Compiling entry function 'b' for 'sm_80'
ptxas info    : Function properties for b
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 16 registers"""
    uses = kernel_uses(log)
    assert (uses["a"].registers, uses["a"].stack, uses["a"].spills) == (72, 8, 4)
    assert (uses["b"].registers, uses["b"].stack, uses["b"].spills) == (16, 0, 0)


def test_the_compiler_of_an_older_generation_may_be_asked_for(monkeypatch):
    """For drivers that load no code of CUDA 13."""
    asked = []
    monkeypatch.setattr(compiler, "_nvrtc_library", lambda package: asked.append(package))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("QCOMPILE_CUDA_COMPILER", "nvrtc12")
    with pytest.raises(QCompileError):
        find_compiler.__wrapped__()
    monkeypatch.delenv("QCOMPILE_CUDA_COMPILER")
    with pytest.raises(QCompileError):
        find_compiler.__wrapped__()
    assert asked == ["nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"]
