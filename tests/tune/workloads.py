"""Small workloads, and candidates that misbehave in every way that a candidate can."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.ops import Affine, Conv2d, Dense, Epilogue
from qcompile.targets.kernels.conv import Constants, Kernel, conv2d
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.tiling import Tile
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target

CODES, SIGNED = Affine(1.0, 0), Affine(1.0, 0, "int8")
SABOTAGED = "sabotaged"


def conv(
    integer: bool = True,
    residual: bool = False,
    channels: tuple[int, int] = (16, 32),
    size: int = 8,
    batch: int = 1,
    threads: int = 1,
    operator: str = "conv2d",
    codes: Affine | None = CODES,
) -> Workload:
    """A 3x3 convolution with a border of 1 on both sides."""
    codes = codes if integer else None
    dtype = codes.dtype if codes else "float32"
    epilogue = Epilogue(codes, None, codes if residual else None, residual and not integer)
    spec = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, codes, epilogue)
    x, out = (Storage((batch, c, size, size), dtype, 16, (1, 1, 1, 1)) for c in channels)
    other = replace(out, border=(0, 0, 0, 0)) if residual else None
    return Workload.of(operator, spec, (channels[1], channels[0], 3, 3), x, out, other, threads)


def dense(integer: bool = True, floats_out: bool = False) -> Workload:
    codes = CODES if integer else None
    spec = Dense(codes, Epilogue(None if floats_out else codes, (0.0, float("inf"))))
    x, out = Storage((1, 4, 40), "uint8" if integer else "float32"), Storage((1, 4, 24), "float32")
    if integer and not floats_out:
        out = replace(out, dtype="uint8")
    return Workload.of("dense", spec, (24, 40), x, out, None, 1)


def dense_w8() -> Workload:
    spec = Dense(None, Epilogue(None, (0.0, float("inf"))), weights="int8")
    return Workload.of("dense", spec, (24, 40), Storage((1, 4, 40), "float32"), Storage((1, 4, 24), "float32"), None, 1)


def dense_int4() -> Workload:
    spec = Dense(CODES, Epilogue(CODES, (0.0, float("inf"))), 32)
    return Workload.of(
        "dense_int4", spec, (24, 96), Storage((1, 4, 96), "uint8"), Storage((1, 4, 24), "uint8"), None, 1
    )


def some_knobs(workload: Workload, target: Target, count: int) -> tuple[Any, ...]:
    space = list(TEMPLATES[workload.operator].space(workload, target))
    return tuple(space[:: max(1, len(space) // count)][:count])


@dataclass(frozen=True)
class Sabotage:
    """Knobs of a template that only worker processes know: unpickling registers it.

    kind: "" for a good candidate; "wrong" result, "crash", "trap", "hang" of the kernel; "refused", "does not compile",
    "builder crashes" or "builder hangs" while it is built; "hang while PATH exists", after it made PATH.reached.
    """

    kind: str = ""
    tile: Tile = Tile(1, 8, 2)

    def __reduce__(self) -> tuple:
        return _arrived, (self.kind, self.tile)


def sabotaged_conv(codes: Affine = CODES) -> Workload:
    return conv(operator=SABOTAGED, codes=codes)


def _arrived(kind: str, tile: Tile) -> Sabotage:
    TEMPLATES[SABOTAGED] = replace(TEMPLATES["conv2d"], build=_build)
    return Sabotage(kind, tile)


def _build(
    spec: Conv2d, constants: Constants, x: Storage, out: Storage, residual: Storage | None, target: Target, knobs: Any
) -> Kernel:
    kind = knobs.kind
    if kind == "refused":
        raise ValueError("no such tile")
    if kind == "builder crashes":
        os.abort()
    if kind == "builder hangs":
        time.sleep(1000)
    if kind == "wrong":
        constants = replace(constants, bias=constants.bias + 1_000_000)
    kernel = conv2d(spec, constants, x, out, residual, target, knobs.tile)
    before = {
        "crash": lambda: T.evaluate(T.call_extern("int32", "abort")),
        "hang": lambda: T.evaluate(T.call_extern("int32", "pause")),
        "trap": lambda: T.evaluate(tirx.call_llvm_intrin("void", "llvm.trap")),
        "does not compile": lambda: T.evaluate(tirx.call_llvm_intrin("int32", "llvm.bswap.i32")),
    }
    if kind.startswith("hang while "):
        return replace(kernel, function=_first(kernel.function, lambda: _hang_while(kind.removeprefix("hang while "))))
    return replace(kernel, function=_first(kernel.function, before[kind])) if kind in before else kernel


def _hang_while(path: str) -> None:
    with T.If(T.call_extern("int32", "access", path, 0) == 0), T.Then():
        T.evaluate(T.call_extern("int32", "creat", f"{path}.reached", 0o600))
        T.evaluate(T.call_extern("int32", "pause"))


def _first(function: tirx.PrimFunc, emit: Any) -> tirx.PrimFunc:
    """The function with what ``emit`` emits before its body."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("first")
        emit()
    body = tirx.SeqStmt([builder.get().body, function.body])
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)
