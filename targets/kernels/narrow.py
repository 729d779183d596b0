"""Rounds float32 to the numbers of a narrower type, where the processor has no products of those."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from qcompile.reference.narrow import NARROW
from qcompile.targets.kernels.builder import Buffer, bind, kernel, rounded, splat, vector
from qcompile.targets.kernels.sweep import Operand, elementwise
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def round_to(dtype: str, x: Storage, target: Target) -> tirx.PrimFunc:
    """``reference.narrow.rounded``: buffers x, y, both float32, laid out alike. NaN becomes a number."""
    row = NARROW[dtype]

    def compute(value: Expr, lanes: int) -> Expr:
        def constant(number: float) -> Expr:
            return splat(number, "float32", lanes)

        value = bind(tirx.Min(tirx.Max(value, constant(-row.largest)), constant(row.largest)))
        exponent = tirx.reinterpret(vector("uint32", lanes), value) & splat(0x7F800000, "uint32", lanes)
        power = tirx.Max(tirx.reinterpret(vector("float32", lanes), exponent), constant(2.0**row.least))
        magic = bind(rounded(power * constant(row.magic), lanes))
        return rounded(value + magic, lanes) - magic

    def body(source: Buffer, y: Buffer) -> None:
        elementwise([Operand(source, x)], Operand(y, x), target, compute)

    return kernel("round", [("x", x.dtype, x.numel), ("y", x.dtype, x.numel)], body)
