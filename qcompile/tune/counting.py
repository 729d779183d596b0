"""Counts the instructions that the candidates of one library execute, under QEMU, and checks each one's result.

::

    main(active, x, [residual], y, stamps, weights):
        for candidate in active:
            stamp
            kernel(x, its constants in weights, [residual], its part of y)
            stamp

A stamp reads the counter at which QEMU's plugin begins a new section of its count. The C runner loads the library and
calls ``main`` once. A count holds the kernel and the few instructions that pass its arguments. It is the same each
time; in another library, where LLVM inlines the kernel beside others, it differs by some tenths of a percent, as it
does in a model. Runs in a worker process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tvm import tirx
from tvm.ir import GlobalVar, IRModule
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.artifact import LIBRARY, WEIGHTS
from qcompile.errors import QCompileError
from qcompile.manifest import TensorInfo
from qcompile.passes.kernel_calls import address, call_kernel, private
from qcompile.runtime.emulate import count_sections
from qcompile.runtime.executable import DESCRIPTION, describe
from qcompile.targets.kernels.conv import Kernel
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import Storage
from qcompile.tune.arrays import Feed, difference
from qcompile.tune.builder import Built
from qcompile.tune.harness import MAIN, Harness, Packing, elements, pack, padded, when
from qcompile.tune.measure import Measurement

_ALIGNMENT = 64  # bytes


@dataclass(frozen=True, slots=True)
class CountingJob:
    """command: the C runner behind its launcher. limit: seconds for one candidate, and for what comes before it."""

    workload: Workload
    built: Built
    feed: Feed
    command: tuple[str, ...]
    limit: float


def counting_harness(kernels: Sequence[Kernel], x: Storage, out: Storage, residual: Storage | None) -> Harness:
    """At most ``harness.CANDIDATES`` kernels, all for the same tensors; see ``main`` above."""
    blob, packings = pack(kernels)
    names = [GlobalVar(f"candidate_{i}") for i in range(len(kernels))]
    functions = {name: private(kernel.function) for name, kernel in zip(names, kernels, strict=True)}
    candidates = [(n, k.function, p) for n, k, p in zip(names, kernels, packings, strict=True)]
    main = _main(candidates, blob.size, x, out, residual)
    return Harness(IRModule({GlobalVar(MAIN): main, **functions}), blob, tuple(packings))


def count(job: CountingJob) -> dict[int, Measurement]:
    """Instructions of each of the library's members; those of a process that fails are tried again alone."""
    with tempfile.TemporaryDirectory(prefix="count-") as scratch:
        folder = Path(scratch)
        _lay_out(folder, job)
        everyone = range(len(job.built.members))
        try:
            found = _counts(folder, job, everyone)
        except QCompileError:
            found = {}
            for slot in everyone:
                try:
                    found |= _counts(folder, job, [slot])
                except QCompileError as error:
                    found[slot] = Measurement((), f"measuring failed: {error.reason}")
        return {member: found[slot] for slot, member in enumerate(job.built.members)}


def _counts(folder: Path, job: CountingJob, slots: Sequence[int]) -> dict[int, Measurement]:
    """Of some candidates, run in one process."""
    w = job.workload
    _, outputs = _tensors(w, len(job.built.members))
    active = np.array([sum(1 << slot for slot in slots)], np.int64)
    residual = [] if w.residual is None else [padded(job.feed.residual, w.residual)]
    arrays = [active, padded(job.feed.x, w.x), *residual]
    (y, _), sections = count_sections(job.command, folder, arrays, outputs, job.limit * (len(slots) + 1))
    size = elements(w.out)
    found = {}
    for slot, executed in zip(slots, sections[::2], strict=True):  # those between lie between two candidates
        start = slot * _stride(w.out)
        error = difference(w, y[start : start + size], job.feed.want)
        found[slot] = Measurement((), error) if error else Measurement((float(executed),))
    return found


def _lay_out(folder: Path, job: CountingJob) -> None:
    """A folder as the C runner takes it."""
    constants = np.load(job.built.constants)
    inputs, outputs = _tensors(job.workload, len(job.built.members))
    (folder / DESCRIPTION).write_text(describe(inputs, outputs, memory=[f"weights {constants.size}"]), "utf-8")
    (folder / LIBRARY).symlink_to(job.built.library.resolve())
    constants.tofile(folder / WEIGHTS)


def _tensors(w: Workload, count: int) -> tuple[list[TensorInfo], list[TensorInfo]]:
    """Inputs and outputs of ``main``."""
    flat = {"x": w.x} | ({"residual": w.residual} if w.residual else {})
    inputs = [TensorInfo(name, (elements(storage),), storage.dtype) for name, storage in flat.items()]
    outputs = [TensorInfo("y", (count * _stride(w.out),), w.out.dtype), TensorInfo("stamps", (2 * count,), "int64")]
    return [TensorInfo("active", (1,), "int64"), *inputs], outputs


def _stride(out: Storage) -> int:
    """Elements from one candidate's result to the next one's."""
    each = _ALIGNMENT // np.dtype(out.dtype).itemsize
    return -(-elements(out) // each) * each


def _main(
    candidates: Sequence[tuple[GlobalVar, tirx.PrimFunc, Packing]],
    weight_bytes: int,
    x: Storage,
    out: Storage,
    residual: Storage | None,
) -> tirx.PrimFunc:
    stride = _stride(out) * np.dtype(out.dtype).itemsize
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(MAIN)
        active = T.arg("active", T.buffer((1,), "int64"))
        tensors = {"x": x} | ({"residual": residual} if residual else {})
        first, *rest = [address(T.arg(n, T.buffer((elements(s),), s.dtype)), 0) for n, s in tensors.items()]
        y = T.arg("y", T.buffer((len(candidates) * _stride(out),), out.dtype))
        stamps = T.arg("stamps", T.buffer((2 * len(candidates),), "int64"))
        weights = T.arg("weights", T.buffer((weight_bytes,), "uint8"))
        for c, (name, function, packing) in enumerate(candidates):
            with when((active[0] >> tirx.const(c, "int64")) & tirx.const(1, "int64") != 0):
                _stamp(stamps, 2 * c)
                constants = [address(weights, packing.start + offset) for offset in packing.offsets]
                call_kernel(name, function, [first, *constants, *rest, address(y, c * stride)])
                _stamp(stamps, 2 * c + 1)
    return builder.get()


def _stamp(stamps: tirx.Buffer, number: int) -> None:
    T.buffer_store(stamps, tirx.call_llvm_intrin("int64", "llvm.readcyclecounter"), [number])
