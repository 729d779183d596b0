"""Runs a program on this machine's CPU: the same kernels, compiled by its C++ compiler with ``device/emulated.h``."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qcompile.errors import QCompileError
from qcompile.manifest import Launch
from qcompile.targets.cuda.program import DEVICE, Program

_CHECKED = ("-fno-sanitize=undefined", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error")
_FLAGS = ("-x", "c++", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", "-fno-exceptions", "-w", *_CHECKED)
_PAGE, _ALIGNMENT, _POISON = mmap.PAGESIZE, 16, 0xA5
_libc = ctypes.CDLL(None)


class Emulated:
    """Kernels, for a CPU."""

    def __init__(self, source: str, optimize: int = 2, architecture: int = 800):
        """source: ``Program.source``. optimize: more makes runs faster, less compiling. architecture: 750 of sm_75."""
        with tempfile.TemporaryDirectory(prefix="qcompile-") as folder:
            library = Path(folder) / "kernels.so"
            emulated_library(source, library, optimize, architecture)
            self._library = ctypes.CDLL(str(library))
        self._library.emulate.restype = ctypes.c_char_p

    def run(
        self, program: Program, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], order: int = 0
    ) -> None:
        """One call of a program of these kernels; fills ``outputs``.

        order: of blocks, warps and lanes: 0 forwards, 1 backwards, more for the seed of a mixed one.

        Raises ``QCompileError`` for what a GPU would not have done alike: a missing barrier that shows, copies out of
        place, writes outside of a buffer.
        """
        buffers = {
            **{f"input{i}": _Guarded(x.nbytes, x) for i, x in enumerate(inputs)},
            **{f"output{i}": _Guarded(y.nbytes) for i, y in enumerate(outputs)},
            "weights": _Guarded(program.weights.nbytes, program.weights),
            "workspace": _Guarded(program.workspace),
        }
        for launch in program.launches:
            self._launch(launch, buffers, order)
            for name, buffer in buffers.items():
                buffer.check(f"{launch.kernel} writes outside of {name}")
        for i, y in enumerate(outputs):
            y[...] = buffers[f"output{i}"].bytes.view(y.dtype).reshape(y.shape)

    def _launch(self, launch: Launch, buffers: Mapping[str, _Guarded], order: int) -> None:
        arguments = [ctypes.c_void_p(buffers[place].bytes.ctypes.data + offset) for place, offset in launch.arguments]
        failure = self._library.emulate(
            getattr(self._library, launch.kernel),
            len(arguments),
            (ctypes.c_void_p * len(arguments))(*arguments),
            launch.grid,
            launch.block,
            launch.shared,
            order,
        )
        if failure:
            raise QCompileError(failure.decode(), node=launch.kernel)


def emulated_library(source: str, library: Path, optimize: int = 2, architecture: int = 800) -> None:
    """Compiles kernels for this CPU into a shared library with ``emulate``, see ``device/emulated.h``."""
    text = library.with_suffix(".cc")
    text.write_text((DEVICE / "emulated.h").read_text(encoding="utf-8") + source, encoding="utf-8")
    command = [*_host_compiler(), *_FLAGS, f"-O{optimize}", f"-DQC_ARCH={architecture}", "-o", str(library), str(text)]
    cache = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qcompile" / "zig")
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise QCompileError(f"the C++ compiler refused a kernel: {done.stderr.strip()[:2000]}")


class _Guarded:
    """Memory that ends where a page begins that may not be touched, poisoned before it."""

    def __init__(self, size: int, content: np.ndarray | None = None):
        self._length = -(-size // _PAGE) * _PAGE + 2 * _PAGE
        self._whole = np.frombuffer(mmap.mmap(-1, self._length), np.uint8)
        self._whole[:] = _POISON
        start = self._length - _PAGE - -(-size // _ALIGNMENT) * _ALIGNMENT
        self.bytes = self._whole[start : start + size]
        self._around = (self._whole[_PAGE:start], self._whole[start + size : -_PAGE])
        if content is not None:
            self.bytes[:] = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
        self._protect(0)  # PROT_NONE

    def check(self, what: str) -> None:
        if any((part != _POISON).any() for part in self._around):
            raise QCompileError(what)

    def _protect(self, how: int) -> None:
        start = self._whole.ctypes.data
        for page in (start, start + self._length - _PAGE):
            _libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), how)

    def __del__(self) -> None:
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)


def _host_compiler() -> list[str]:
    for name in ("g++", "clang++", "c++"):
        if path := shutil.which(name):
            return [path]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise QCompileError("no C++ compiler found", remedy="install one: apt install g++, or pip install ziglang")
