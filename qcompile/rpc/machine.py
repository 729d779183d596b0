"""What a machine is: the CPU's name, cores and features, asked through a session as everything else is.

A server of TVM gives no way to read a file of /proc, whose size it cannot know, so a function that does is sent there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.ir import GlobalVar, IRModule
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.target import Target as TVMTarget

from qcompile.artifact import write_library
from qcompile.errors import QCompileError
from qcompile.passes.kernel_calls import address
from qcompile.rpc.places import Place
from qcompile.runtime.features import CPUINFO, cpus_of, features_of, name_of
from qcompile.targets.kernels import builder as b

_READ = "read"
_MOST = 4 << 20  # bytes of /proc/cpuinfo: some hundred cores
_CHUNKS = 4096  # a page each
_EXECUTABLE = "/proc/self/exe"  # of the server, whose head names the architecture
_ARCHITECTURES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}  # e_machine of ELF


@dataclass(frozen=True, slots=True)
class Machine:
    """device: the CPU's model name. cores: as many as Linux shows."""

    device: str
    cores: int
    features: frozenset[str]

    def check(self, features: Iterable[str], target: str) -> None:
        """Raises ``QCompileError`` if it lacks one of the features that code for ``target`` needs."""
        missing = [f for f in features if f not in self.features]
        if missing:
            raise QCompileError(
                f"the machine ({self.device}) cannot run code for {target}: it lacks {', '.join(missing)}",
                remedy="choose another target, or another machine",
            )


def loaded() -> None:
    """No more than the import of this module, which takes a worker a second."""


def build_reader(triple: str, library: Path) -> None:
    """Writes a library with ``read(path, text)``, for any CPU of the architecture."""
    module = tvm.compile(IRModule({GlobalVar(_READ): _reader()}), TVMTarget({"kind": "llvm", "mtriple": triple}))
    write_library(module, library, triple)


def ask(place: Place, library: Path, limit: float) -> Machine:
    """The machine at a place; library: ``build_reader``'s."""
    with place.session(limit) as session:
        return machine_behind(session, library)


def machine_behind(session: Any, library: Path) -> Machine:
    """The machine behind a session; library: ``build_reader``'s.

    Raises ``QCompileError`` if it is of another architecture than the library.
    """
    read = load(session, library)[_READ]
    device = session.cpu(0)
    path = tvm.runtime.tensor(np.frombuffer(bytes(CPUINFO) + b"\0", np.uint8), device)
    text = tvm.runtime.tensor(np.zeros(_MOST, np.uint8), device)
    read(path, text)
    return machine_of(text.numpy().tobytes().rstrip(b"\0").decode(errors="replace"))


def load(session: Any, library: Path) -> Any:
    """The module of a library that is sent there. Raises ``QCompileError`` if it is of another architecture."""
    session.upload(str(library))
    try:
        return session.load_module(library.name)
    except RuntimeError:
        ours, theirs = _architecture(library.read_bytes), architecture_of(session)
        if theirs in ("", ours):
            raise
        raise QCompileError(
            f"the code is for {ours}, and the machine is {theirs}", remedy="name another machine, or another target"
        ) from None
    finally:
        session.remove(library.name)


def architecture_of(session: Any) -> str:
    """Of the machine behind a session, "x86_64"; "" where that cannot be told."""
    return _architecture(lambda: session.download(_EXECUTABLE))


def machine_of(cpuinfo: str) -> Machine:
    """From the text of /proc/cpuinfo."""
    cores = sum("processor" in cpu for cpu in cpus_of(cpuinfo))
    return Machine(name_of(cpuinfo), max(cores, 1), features_of(cpuinfo))


def _architecture(read: Any) -> str:
    """Of a program or library; "" where that cannot be told."""
    try:
        head = bytes(read()[:20])
    except (RuntimeError, OSError):
        return ""
    return _ARCHITECTURES.get(int.from_bytes(head[18:20], "little"), "") if head.startswith(b"\x7fELF") else ""


def _reader() -> tirx.PrimFunc:
    """``open`` and ``read`` of libc, in as many pieces as the kernel gives."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(_READ)
        size = T.int64()
        path = T.arg("path", T.buffer((size,), "uint8"))
        text = T.arg("text", T.buffer((_MOST,), "uint8"))
        done = b.registers(1, "int64")
        T.buffer_store(done, tirx.const(0, "int64"), [0])
        file = T.bind(T.call_extern("int32", "open", address(path, 0), 0))
        with T.serial(0, _CHUNKS):
            room = tirx.const(_MOST, "int64") - done[0]
            got = T.bind(T.call_extern("int64", "read", file, address(text, done[0]), room))
            T.buffer_store(done, done[0] + tirx.Max(got, tirx.const(0, "int64")), [0])
        T.evaluate(T.call_extern("int32", "close", file))
    return builder.get()
