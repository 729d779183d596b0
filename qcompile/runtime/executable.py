"""The C runner (``native/runner.c``): what it is told of a model, and compiling it for a machine.

It is a static program without TVM, so it runs on a board with nothing installed, and under an emulator without a root
file system.
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
_SOURCE = Path(__file__).parent / "native" / "runner.c"
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
    arch = triple.split("-")[0]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qcompile"
    source = _SOURCE.read_bytes()
    runner = cache / f"runner-{arch}-{hashlib.sha256(source).hexdigest()[:16]}"
    if not runner.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / "lock").open("w") as lock:  # compiling a C library takes a while: once is enough
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not runner.exists():
                    _compile(arch, runner, cache)
        except OSError as error:
            raise QCompileError(f"cannot be written: {error.strerror}", node=str(cache)) from None
    return runner


def _compile(arch: str, runner: Path, cache: Path) -> None:
    new = runner.with_suffix(".new")
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(cache / "zig"), "ZIG_LOCAL_CACHE_DIR": str(cache / "zig")}
    command = [*_compiler(arch), *_FLAGS, "-o", str(new), str(_SOURCE), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode:
        raise QCompileError(f"compiling the runner failed: {done.stderr.strip()}", node=command[0])
    new.replace(runner)


def _compiler(arch: str) -> list[str]:
    if arch == platform.machine() and (path := shutil.which("cc")):
        return [path]
    if path := shutil.which(f"{arch}-linux-gnu-gcc"):
        return [path, "-static"]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-musl", "-static"]
    raise QCompileError(
        f"no C compiler for {arch} found (looked for {arch}-linux-gnu-gcc and the ziglang package)",
        remedy=f"install one: \"pip install 'qcompile[arm]'\", or 'apt install gcc-{arch.replace('_', '-')}-linux-gnu'",
    )
