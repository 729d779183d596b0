"""The C programs of ``native/``, compiled for a machine: the runner, what it is told of a model, and a plugin of QEMU.

The runner is a static program without TVM, so it runs on a board with nothing installed, and under an emulator without
a root file system.
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
from pathlib import Path

from qcompile.errors import QCompileError
from qcompile.manifest import Manifest, TensorInfo

DESCRIPTION = "model.txt"
SOURCES = Path(__file__).parent / "native"
_FLAGS = ("-O2", "-s")


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
            *(f"library {name}" for name in manifest.runtime_libraries),
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
    """The runner for a machine; compiled at its first use on this one, and kept in the user's cache.

    Raises ``QCompileError`` that says what to install where no C compiler for the machine is there.
    """
    return _compiled("runner", triple.split("-")[0], ["-static"])


def counter() -> Path:
    """QEMU's plugin that counts instructions, for this machine; as ``runner_for``."""
    return _compiled("icount", platform.machine(), ["-shared", "-fPIC"])


def _compiled(program: str, arch: str, flags: Sequence[str]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qcompile"
    source = SOURCES / f"{program}.c"
    binary = cache / f"{program}-{arch}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not binary.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / "lock").open("w") as lock:  # compiling a C library takes a while: once is enough
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not binary.exists():
                    _compile(arch, source, binary, flags)
        except OSError as error:
            raise QCompileError(f"cannot be written: {error.strerror}", node=str(cache)) from None
    return binary


def _compile(arch: str, source: Path, binary: Path, flags: Sequence[str]) -> None:
    new, zig = binary.with_suffix(".new"), str(binary.parent / "zig")
    environment = {"ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig}
    command = [*_compiler(arch), *_FLAGS, "-o", str(new), str(source), "-lm"]

    def compiled(flags: Sequence[str]) -> subprocess.CompletedProcess:
        environ = {**os.environ, **environment}
        return subprocess.run([*command, *flags], capture_output=True, text=True, check=False, env=environ)

    done = compiled(flags)
    if done.returncode and arch == platform.machine():  # not every machine has the static libraries
        done = compiled([flag for flag in flags if flag != "-static"])
    if done.returncode:
        raise QCompileError(f"compiling {source.name} failed: {done.stderr.strip()}", node=command[0])
    new.replace(binary)


def _compiler(arch: str) -> list[str]:
    if arch == platform.machine() and (path := shutil.which("cc")):
        return [path]
    if path := shutil.which(f"{arch}-linux-gnu-gcc"):
        return [path]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-musl"]
    raise QCompileError(
        f"no C compiler for {arch} found (looked for {arch}-linux-gnu-gcc and the ziglang package)",
        remedy=f"install one: \"pip install 'qcompile[arm]'\", or 'apt install gcc-{arch.replace('_', '-')}-linux-gnu'",
    )
