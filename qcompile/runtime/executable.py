"""What ``native/`` has in C, compiled for a machine: a runtime without TVM, and a plugin of QEMU.

The runtime comes as a static program, which runs on a board with nothing installed, and under an emulator without a
root file system; and as a shared library, for glibc 2.17 (2012) and later.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qcompile.errors import QCompileError
from qcompile.manifest import Manifest, TensorInfo

DESCRIPTION = "model.txt"
SOURCES = Path(__file__).parent / "native"
RUNTIME = ("error.c", "features.c", "loader.c", "model.c", "symbols.c", "threads.c")
HEADERS = ("internal.h", "qcompile.h", "qcompile.hpp")
_FLAGS = ("-std=gnu11", "-O2", "-s", "-fvisibility=hidden")  # a later C has later symbols of libc


@dataclass(frozen=True, slots=True)
class _Compiler:
    """Words of a command, those for a program and for a library, and those behind the files of a library."""

    command: tuple[str, ...]
    static: tuple[str, ...]
    shared: tuple[str, ...]
    libraries: tuple[str, ...]


def description_of(manifest: Manifest) -> str:
    """``model.txt`` of an artifact: what its library needs, and the arguments of a call in order."""
    arch = manifest.triple.split("-")[0]
    return describe(
        manifest.inputs,
        manifest.outputs,
        [
            f"machine {arch}",
            f"target {manifest.target}",
            *(f"feature {word}" for word in manifest.features),
        ],
        [f"weights {manifest.weights.bytes}", f"workspace {manifest.workspace_bytes}"],
    )


def describe(
    inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], needs: Sequence[str] = (), memory: Sequence[str] = ()
) -> str:
    """The text of ``model.txt``: tensors, and lines before and after them as they are."""

    def line(kind: str, tensor: TensorInfo) -> str:
        return " ".join([kind, tensor.dtype, str(len(tensor.shape)), *map(str, tensor.shape), tensor.name])

    tensors = [line("input", t) for t in inputs] + [line("output", t) for t in outputs]
    return "\n".join(["format 1", *needs, *tensors, *memory, ""])


def runner_for(triple: str) -> Path:
    """The program that runs a model, for a machine; compiled at its first use here, and kept in the user's cache.

    Raises ``QCompileError`` that says what to install where no C compiler for the machine is there.
    """
    return _compiled("run", triple.split("-")[0], ("run.c", *RUNTIME), shared=False)


def library_for(triple: str) -> Path:
    """The runtime as a shared library, with the functions of ``qcompile.h``; as ``runner_for``."""
    return _compiled("libqcompile", triple.split("-")[0], RUNTIME, shared=True)


def counter() -> Path:
    """QEMU's plugin that counts instructions, for this machine; as ``runner_for``."""
    return _compiled("icount", platform.machine(), ("icount.c",), shared=True)


def _compiled(name: str, arch: str, sources: Sequence[str], shared: bool) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qcompile"
    files = [SOURCES / file for file in sources]
    made_from = (*files, *(SOURCES / header for header in HEADERS), Path(__file__))  # which has the compilers' options
    texts = b"".join(file.read_bytes() for file in made_from)
    binary = cache / f"{name}-{arch}-{hashlib.sha256(texts).hexdigest()[:16]}"
    if not binary.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / "lock").open("w") as lock:  # compiling a C library takes a while: once is enough
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not binary.exists():
                    _compile(arch, files, binary, shared)
        except OSError as error:
            remedy = "name a folder for caches by XDG_CACHE_HOME"
            raise QCompileError(f"cannot be written: {error.strerror}", node=str(cache), remedy=remedy) from None
    return binary


def _compile(arch: str, files: Sequence[Path], binary: Path, shared: bool) -> None:
    new, zig = binary.with_suffix(".new"), str(binary.parent / "zig")
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig}
    errors = []
    for compiler in _compilers(arch):  # the next one where one lacks a part, such as static libraries
        flags, libraries = (compiler.shared, compiler.libraries) if shared else (compiler.static, ("-lm", "-pthread"))
        command = [*compiler.command, *flags, *_FLAGS, "-o", str(new), *map(str, files), *libraries]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if not done.returncode:
            new.replace(binary)
            return
        errors.append(QCompileError(f"compiling {files[0].name} failed: {done.stderr.strip()}", node=command[0]))
    raise errors[0]


# By default GCC's atomic operations on ARM ask the system what the CPU has, through a libc of a certain age.
_NO_HELPERS = {"aarch64": ("-mno-outline-atomics",)}


def _compilers(arch: str) -> list[_Compiler]:
    """GCC's shared libraries name no versions of symbols, and are linked with no libc, so that an older one will do."""
    found, here = [], arch == platform.machine()
    gcc = shutil.which("cc" if here else f"{arch}-linux-gnu-gcc")
    if gcc:
        shared = ("-shared", "-fPIC", "-nostdlib", *_NO_HELPERS.get(arch, ()))
        found.append(_Compiler((gcc,), ("-static",), shared, ("-lgcc",)))
    if importlib.util.find_spec("ziglang"):
        command = (sys.executable, "-m", "ziglang", "cc", "-target")
        shared = (f"{arch}-linux-gnu.2.17", "-shared", "-fPIC")
        found.append(_Compiler(command, (f"{arch}-linux-musl", "-static"), shared, ("-lm", "-pthread")))
    if gcc and here:
        # Better something for the libc of this machine than nothing.
        found.append(_Compiler((gcc,), (), ("-shared", "-fPIC"), ("-lm", "-pthread")))
    if found:
        return found
    raise QCompileError(
        f"no C compiler for {arch} found (looked for {arch}-linux-gnu-gcc and the ziglang package)",
        remedy=f"install one: \"pip install 'qcompile[arm]'\", or 'apt install gcc-{arch.replace('_', '-')}-linux-gnu'",
    )
