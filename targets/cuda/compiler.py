"""From CUDA C++ to machine code, on a machine without a GPU: NVRTC from its pip package, else nvcc.

Products and sums stay as they are written (``--fmad=false``, no fast-math), so that every compiler and architecture
gives the same bits.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from qcompile.errors import QCompileError

_PACKAGES = {"nvrtc": "nvidia-cuda-nvrtc", "nvrtc12": "nvidia-cuda-nvrtc-cu12"}  # CUDA 13 and newer, CUDA 12
_FLAGS = ("--std=c++17", "--fmad=false")
_USED = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) reg", re.S
)


@dataclass(frozen=True, slots=True)
class KernelUse:
    """What a kernel takes: registers a thread, bytes of its stack frame, bytes that it spills to memory."""

    registers: int
    stack: int
    spills: int


@dataclass(frozen=True, slots=True)
class Cubin:
    """Machine code of one architecture; kernels: by name."""

    code: bytes
    kernels: dict[str, KernelUse]


@dataclass(frozen=True, slots=True)
class Compiler:
    """name: "nvrtc 13.5" or "nvcc 13.0". path: of the library, or the program."""

    name: str
    path: Path

    def cubin(self, source: str, arch: str) -> Cubin:
        """arch: "sm_80". Raises ``QCompileError`` with the compiler's first line."""
        run = _nvrtc if self.name.startswith("nvrtc") else _nvcc
        code, log = run(self.path, source, f"--gpu-architecture={arch}", "cubin")
        return Cubin(code, kernel_uses(log))

    def ptx(self, source: str, arch: str) -> bytes:
        """arch: "compute_90"."""
        run = _nvrtc if self.name.startswith("nvrtc") else _nvcc
        return run(self.path, source, f"--gpu-architecture={arch}", "ptx")[0]


@cache
def find_compiler() -> Compiler:
    """NVRTC of the Python environment, the newer one first, else nvcc on the path.

    QCOMPILE_CUDA_COMPILER=nvrtc12 or =nvcc wishes for that one: a driver loads no code of a newer generation of CUDA.
    Raises ``QCompileError`` that says what to install.
    """
    wish = os.environ.get("QCOMPILE_CUDA_COMPILER")
    packages = _PACKAGES if wish is None else {wish: _PACKAGES[wish]} if wish in _PACKAGES else {}
    library = next(filter(None, map(_nvrtc_library, packages.values())), None)
    if library is not None:
        major, minor = ctypes.c_int(), ctypes.c_int()
        ctypes.CDLL(str(library)).nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return Compiler(f"nvrtc {major.value}.{minor.value}", library)
    if nvcc := shutil.which("nvcc"):
        said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"release (\d+\.\d+)", said)
        return Compiler(f"nvcc {version[1] if version else '(unknown)'}", Path(nvcc))
    raise QCompileError(
        "no CUDA compiler found (looked for NVRTC's Python package and for nvcc)",
        remedy="install one: pip install 'qcompile[cuda]', or the CUDA toolkit, 13.0 or newer",
    )


def kernel_uses(log: str) -> dict[str, KernelUse]:
    """What ``ptxas -v`` says of each kernel."""
    return {
        name: KernelUse(int(registers), int(stack), int(spills))
        for name, stack, spills, registers in _USED.findall(log)
    }


def _nvrtc_library(package: str) -> Path | None:
    try:
        files = distribution(package).files or ()
    except PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if re.fullmatch(r"libnvrtc\.so\.\d+", file.name))
    return next((path for path in found if path.exists()), None)


def _nvrtc(library: Path, source: str, arch: str, kind: str) -> tuple[bytes, str]:
    nvrtc = ctypes.CDLL(str(library))
    program = ctypes.c_void_p()
    _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None))
    try:
        options = [*_FLAGS, arch, *(["--ptxas-options=-v"] if kind == "cubin" else [])]
        values = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        result = nvrtc.nvrtcCompileProgram(program, len(options), values)
        log = _text(nvrtc, program, "ProgramLog").decode(errors="replace")
        if result:
            raise _refused(log)
        return _text(nvrtc, program, {"cubin": "CUBIN", "ptx": "PTX"}[kind]), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    memory = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, memory))
    return memory.raw


def _check(nvrtc: ctypes.CDLL, result: int) -> None:
    if result:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise QCompileError(f"NVRTC failed: {nvrtc.nvrtcGetErrorString(result).decode()}")


def _nvcc(nvcc: Path, source: str, arch: str, kind: str) -> tuple[bytes, str]:
    with tempfile.TemporaryDirectory(prefix="qcompile-") as folder:
        (Path(folder) / "kernels.cu").write_text(source, encoding="utf-8")
        options = [f"--{kind}", *_FLAGS, arch, "-Xptxas", "-v"]
        command = [str(nvcc), *options, "-o", "kernels.out", "kernels.cu"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise _refused(done.stdout + done.stderr)
        return (Path(folder) / "kernels.out").read_bytes(), done.stderr


def _refused(log: str) -> QCompileError:
    lines = (
        [line for line in log.splitlines() if "error" in line or "fatal" in line] or log.splitlines() or ["no reason"]
    )
    return QCompileError(f"the CUDA compiler refused a kernel: {lines[0].strip()}", remedy="please report the model")
