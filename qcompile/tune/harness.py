"""Candidates of one workload in one library that times them in turns.

::

    main(active, rounds, repeat, x, [residual], y, weights, layout, stamps):
        for round in range(rounds):
            for candidate in active:                                    # all meet the same disturbances
                stamp
                repeat times: kernel(x, its next copy in weights, [residual], y)
                stamp

Constants are rotated through copies: a kernel finds its weights where those of a network lie, which has walked through
all others since it last came by; activations are where the layer before has just left them. What is measured, how often
and among how many copies is decided when the library is called: measuring again needs no compilation.

Stamps are the times of ``clock_gettime(CLOCK_MONOTONIC)``, which every libc has: 20 ns a stamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import GlobalVar, IRModule
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.passes.kernel_calls import address, call_kernel, private
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.conv import Kernel
from qcompile.targets.storage import SLACK, Storage

MAIN, SPREAD = "main", "spread"
CANDIDATES = 16  # in one library at most
_ALIGNMENT = 64
_MONOTONIC = 1
_STAMP = 16  # bytes of a struct timespec


@dataclass(frozen=True, slots=True)
class Packing:
    """One way in which candidates pack the constants: its number, place in ``Harness.constants``, bytes, arrays."""

    number: int
    start: int
    size: int
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Harness:
    """``main``, and ``spread(constants, weights, layout)``, which fills the weights that main reads.

    constants: every packing once, uint8. packings: of each candidate.
    """

    module: IRModule
    constants: np.ndarray
    packings: tuple[Packing, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The copies of each packing in ``weights``, by number: byte where they begin, one after the other; how many.

    size: bytes of all.
    """

    copies: tuple[tuple[int, int], ...]
    size: int

    @staticmethod
    def of(packings: Sequence[Packing], active: Sequence[int], footprint: int) -> Layout:
        """So many copies that ``footprint`` bytes are read between two uses of the same one, one at least.

        packings: of each candidate. active: those that run in turns.
        """
        turn = sum(packings[i].size for i in active)
        copies, size = [], 0
        for packing in sorted(set(packings), key=lambda p: p.number):
            users = sum(packings[i] == packing for i in active)
            count = -(-footprint * users // turn)
            while count > 1 and gcd(count, users) > 1:  # or a candidate would always meet the same copies
                count += 1
            count = max(count, 1)
            copies.append((size, count))
            size += count * packing.size
        return Layout(tuple(copies), size + SLACK)


def harness(kernels: Sequence[Kernel], x: Storage, out: Storage, residual: Storage | None) -> Harness:
    """At most ``CANDIDATES`` kernels, all for the same tensors."""
    blob, packings = pack(kernels)
    names = [GlobalVar(f"candidate_{i}") for i in range(len(kernels))]
    functions = {name: private(kernel.function) for name, kernel in zip(names, kernels, strict=True)}
    main = _main([(n, k.function, p) for n, k, p in zip(names, kernels, packings, strict=True)], x, out, residual)
    module = IRModule({GlobalVar(MAIN): main, GlobalVar(SPREAD): _spread(packings, blob.size), **functions})
    return Harness(module, blob, tuple(packings))


def elements(storage: Storage) -> int:
    """Of a buffer that holds a tensor, with the readable bytes that kernels want behind it."""
    return storage.numel + SLACK // np.dtype(storage.dtype).itemsize


def padded(flat: np.ndarray, storage: Storage) -> np.ndarray:
    """A buffer of ``elements`` that begins with ``flat``."""
    result = np.zeros(elements(storage), flat.dtype)
    result[: flat.size] = flat
    return result


def pack(kernels: Sequence[Kernel]) -> tuple[np.ndarray, list[Packing]]:
    """The constants, equal packings once, and each kernel's packing."""
    blob, known, packings = bytearray(), dict[bytes, Packing](), []
    for kernel in kernels:
        packed, offsets = bytearray(), []
        for array in kernel.constants:
            offsets.append(len(packed))
            packed += array.tobytes()
            packed += bytes(-len(packed) % _ALIGNMENT)
        key = bytes(packed)
        if key not in known:
            known[key] = Packing(len(known), len(blob), len(packed), tuple(offsets))
            blob += packed
        packings.append(known[key])
    return np.frombuffer(blob, np.uint8), packings


def _main(
    candidates: Sequence[tuple[GlobalVar, tirx.PrimFunc, Packing]], x: Storage, out: Storage, residual: Storage | None
) -> tirx.PrimFunc:
    count = len({packing for _, _, packing in candidates})
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(MAIN)
        size = T.int64()
        active, rounds, repeat = (T.arg(n, T.int64()) for n in ("active", "rounds", "repeat"))
        tensors = {"x": x} | ({"residual": residual} if residual else {}) | {"y": out}
        first, *rest = [address(T.arg(n, T.buffer((elements(s),), s.dtype)), 0) for n, s in tensors.items()]
        weights = T.arg("weights", T.buffer((size,), "uint8"))
        layout = T.arg("layout", T.buffer((2 * count,), "int64"))
        stamps = T.arg("stamps", T.buffer((rounds * (len(candidates) * 2 * _STAMP // 8),), "int64"))
        calls = b.registers(count, "int64")  # of each packing
        for i in range(count):
            T.buffer_store(calls, tirx.const(0, "int64"), [i])
        with T.serial(0, rounds) as r:
            for c, (name, function, packing) in enumerate(candidates):
                with when((active >> tirx.const(c, "int64")) & tirx.const(1, "int64") != 0):
                    at = (r * len(candidates) + c) * (2 * _STAMP)
                    _stamp(stamps, at)
                    with T.serial(0, repeat):
                        n = packing.number
                        copy = T.bind(layout[2 * n] + calls[n] % layout[2 * n + 1] * packing.size)
                        constants = [address(weights, copy + offset) for offset in packing.offsets]
                        call_kernel(name, function, [first, *constants, *rest])
                        _keep(rest[-1])
                        T.buffer_store(calls, calls[n] + 1, [n])
                    _stamp(stamps, at + _STAMP)
    return builder.get()


def _spread(packings: Sequence[Packing], total: int) -> tirx.PrimFunc:
    different = sorted(set(packings), key=lambda p: p.number)
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(SPREAD)
        constants = T.arg("constants", T.buffer((total,), "uint8"))
        size = T.int64()
        weights = T.arg("weights", T.buffer((size,), "uint8"))
        layout = T.arg("layout", T.buffer((2 * len(different),), "int64"))
        for p in different:
            with T.serial(0, layout[2 * p.number + 1]) as copy, T.serial(0, p.size // _ALIGNMENT) as i:
                block = b.load(constants, p.start + i * _ALIGNMENT, _ALIGNMENT)
                start = layout[2 * p.number] + copy * p.size
                b.store(weights, start + i * _ALIGNMENT, block, _ALIGNMENT)
    return builder.get()


@contextmanager
def when(condition: Any) -> Any:
    """Emits what is done if the condition holds."""
    with T.If(condition), T.Then():
        yield


def _keep(result: tirx.Expr) -> None:
    """Keeps LLVM from computing only what the last of several equal calls stores.

    It must assume that a function that it does not know reads the result, given a pointer to it; this one takes no
    arguments and a nanosecond.
    """
    T.evaluate(T.call_extern("handle", "pthread_self", result))


def _stamp(stamps: tirx.Buffer, offset: Any) -> None:
    T.evaluate(T.call_extern("int32", "clock_gettime", _MONOTONIC, address(stamps, offset)))
