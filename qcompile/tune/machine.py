"""What machine measures: the CPU's name, cores and features, asked through a session as everything else is.

A server of TVM gives no way to read a file of /proc, whose size it cannot know, so a function that does is sent there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
from qcompile.runtime.features import CPUINFO, cpus_of, features_of, name_of
from qcompile.targets.kernels import builder as b
from qcompile.targets.target import Target
from qcompile.tune.places import Place

_READ = "read"
_MOST = 4 << 20  # bytes of /proc/cpuinfo: some hundred cores
_CHUNKS = 4096  # a page each


@dataclass(frozen=True, slots=True)
class Machine:
    """device: the CPU's model name. cores: as many as Linux shows."""

    device: str
    cores: int
    features: frozenset[str]

    def check(self, target: Target) -> None:
        """Raises ``QCompileError`` if it cannot run code for ``target``."""
        missing = [f for f in target.features if f not in self.features]
        if missing:
            raise QCompileError(
                f"the machine that measures ({self.device}) cannot run code for {target.name}: it lacks"
                f" {', '.join(missing)}",
                remedy="tune for another target, or on another machine",
            )


def loaded() -> None:
    """No more than the import of this module, which takes a worker a second."""


def build_reader(triple: str, library: Path) -> None:
    """Writes a library with ``read(path, text)``, for any CPU of the architecture."""
    module = tvm.compile(IRModule({GlobalVar(_READ): _reader()}), TVMTarget({"kind": "llvm", "mtriple": triple}))
    write_library(module, library, triple)


def ask(place: Place, library: Path, limit: float) -> Machine:
    """The machine behind a session; library: ``build_reader``'s."""
    with place.session(limit) as session:
        session.upload(str(library))
        read = session.load_module(library.name)[_READ]
        session.remove(library.name)
        device = session.cpu(0)
        path = tvm.runtime.tensor(np.frombuffer(bytes(CPUINFO) + b"\0", np.uint8), device)
        text = tvm.runtime.tensor(np.zeros(_MOST, np.uint8), device)
        read(path, text)
        return machine_of(text.numpy().tobytes().rstrip(b"\0").decode(errors="replace"))


def machine_of(cpuinfo: str) -> Machine:
    """From the text of /proc/cpuinfo."""
    cores = sum("processor" in cpu for cpu in cpus_of(cpuinfo))
    return Machine(name_of(cpuinfo), max(cores, 1), features_of(cpuinfo))


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
