"""Kernels of one element from one (or two): ``Binary``, ``Lookup``, clip; and ``Requantize``'s rule."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from qcompile.ops import Affine, Binary, Lookup
from qcompile.reference.arithmetic import out_scale, quantize, ratio
from qcompile.targets.kernels.builder import (
    Buffer,
    cast,
    clip_real,
    finish,
    kernel,
    real_steps,
    rounded,
    splat,
    to_codes,
    vector,
)
from qcompile.targets.kernels.lookup import Table
from qcompile.targets.kernels.sweep import Operand, elementwise
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target

_COMBINE = {"add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b}


def binary(spec: Binary, a: Storage, b: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.Binary``: buffers a, b, y. The shapes broadcast to ``out.shape``."""

    def compute(left: Expr, right: Expr, lanes: int) -> Expr:
        return finish(combine(spec, left, right, lanes), spec.epilogue, lanes)

    return _kernel("binary", (a, b), out, target, compute)


def combine(spec: Binary, a: Expr, b: Expr, lanes: int) -> Expr:
    """The ``v`` of ``ops.Binary``."""
    if spec.a is None or spec.b is None:
        return rounded(_COMBINE[spec.kind](a, b), lanes)
    unit = out_scale(spec.epilogue)
    if spec.kind == "multiply":
        product = _centered(a, spec.a, lanes) * _centered(b, spec.b, lanes)
        return rounded(
            cast("float32", product, lanes) * _factor(ratio(spec.a.scale * spec.b.scale, unit), lanes), lanes
        )
    left, right = (
        rounded(real_steps(codes, q, lanes) * _factor(ratio(q.scale, unit), lanes), lanes)
        for codes, q in ((a, spec.a), (b, spec.b))
    )
    return _COMBINE[spec.kind](left, right)


def requantized(codes: Expr, x: Affine, out: Affine, lanes: int) -> Expr:
    """The rule of ``ops.Requantize`` on a vector of codes; codes that already are of ``out`` stay."""
    if x == out:
        return codes
    if x.scale == out.scale and x.zero_point - x.qmin == out.zero_point - out.qmin:
        # The other type of the same codes: c as int8 is c + 128 as uint8, the highest bit the other way round.
        byte = tirx.reinterpret(vector("uint8", lanes), codes)
        return tirx.reinterpret(vector(out.dtype, lanes), byte ^ splat(128, "uint8", lanes))
    value = rounded(real_steps(codes, x, lanes) * _factor(ratio(x.scale, out.scale), lanes), lanes)
    return to_codes(value, out, (out.qmin, out.qmax), lanes)


def clip(bounds: tuple[float, float], affine: Affine | None, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``clip(x, *bounds)``: buffers x, y of one dtype.

    affine: of the codes, if the bounds are real numbers (relu is (0, inf)), which are quantized first. None: the bounds
    are what elements are compared with, numbers of float32 (infinite ones cost nothing) or codes.
    """
    if affine is None and x.dtype == "float32":
        return _kernel("clip", (x,), out, target, lambda value, lanes: clip_real(value, bounds, lanes))
    info = np.iinfo(x.dtype)
    codes = quantize(np.array(bounds, np.float32), affine) if affine else np.clip(bounds, info.min, info.max)
    low, high = (int(code) for code in codes)

    def compute(value: Expr, lanes: int) -> Expr:
        if low > info.min:
            value = tirx.Max(value, splat(low, x.dtype, lanes))
        if high < info.max:
            value = tirx.Min(value, splat(high, x.dtype, lanes))
        return value

    return _kernel("clip", (x,), out, target, compute)


def lookup(spec: Lookup, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.Lookup``: buffers x, table, y."""

    def body(codes: Buffer, table: Buffer, y: Buffer) -> None:
        entries = Table(table, out.dtype, spec.x.qmin, target)
        elementwise([Operand(codes, x)], Operand(y, out), target, entries.look_up, entries.lanes)

    buffers = [("x", x.dtype, x.numel), ("table", out.dtype, 256), ("y", out.dtype, out.numel)]
    return kernel("lookup", buffers, body)


def _kernel(name: str, inputs: tuple[Storage, ...], out: Storage, target: Target, compute) -> tirx.PrimFunc:
    """An element-wise kernel over buffers named after the alphabet."""

    def body(*buffers: Buffer) -> None:
        *sources, y = buffers
        elementwise([Operand(*o) for o in zip(sources, inputs, strict=True)], Operand(y, out), target, compute)

    named = [(f"x{i}", s.dtype, s.numel) for i, s in enumerate(inputs)]
    return kernel(name, [*named, ("y", out.dtype, out.numel)], body)


def _centered(codes: Expr, q: Affine, lanes: int) -> Expr:
    return cast("int32", codes, lanes) - splat(q.zero_point, "int32", lanes)


def _factor(value: np.float32, lanes: int) -> Expr:
    return splat(float(value), "float32", lanes)
