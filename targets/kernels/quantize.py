"""Where the numbers of a graph change their form: quantize, dequantize, requantize, and a change of storage alone."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from qcompile.ops import Affine, Requantize
from qcompile.reference.arithmetic import ratio
from qcompile.targets.kernels.builder import Buffer, bind, kernel, real, real_steps, rounded, splat, stored, to_codes
from qcompile.targets.kernels.elementwise import requantized
from qcompile.targets.kernels.sweep import Compute, Operand, elementwise
from qcompile.targets.kernels.transpose import convert
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def quantize(affine: Affine, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``clip(round_half_even(x / s), qmin - z, qmax - z) + z``, NaN to z: buffers x float32, y codes."""
    scale, codes = float(ratio(affine.scale)), target.dot.codes

    def compute(value: Expr, lanes: int) -> Expr:
        if codes is not None and affine.dtype == "int8" and lanes % 8 == 0:
            steps = tirx.Div(value, splat(scale, "float32", lanes))
            return codes(steps, affine, (affine.qmin, affine.qmax), lanes)  # of NaN: the zero point
        value = bind(value)
        number = tirx.Select(T.isnan(value), splat(0.0, "float32", lanes), value)
        steps = tirx.Div(number, splat(scale, "float32", lanes))
        return to_codes(steps, affine, (affine.qmin, affine.qmax), lanes)

    return _kernel("quantize", x, out, target, compute)


def dequantize(affine: Affine, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``f32(q - z) * s``: buffers x codes, y floats."""
    scale = float(ratio(affine.scale))

    def compute(codes: Expr, lanes: int) -> Expr:
        value = rounded(real_steps(codes, affine, lanes) * splat(scale, "float32", lanes), lanes)
        return stored(value, out.dtype, lanes)

    return _kernel("dequantize", x, out, target, compute)


def requantize(spec: Requantize, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.Requantize``: buffers x, y."""
    return _kernel("requantize", x, out, target, lambda codes, lanes: requantized(codes, spec.x, spec.out, lanes))


def relayout(x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """The same elements in another storage, floats perhaps in another dtype: buffers x, y."""

    def compute(value: Expr, lanes: int) -> Expr:
        return value if x.dtype == out.dtype else stored(real(value, x.dtype, lanes), out.dtype, lanes)

    return _kernel("relayout" if x.dtype == out.dtype else "cast", x, out, target, compute)


def _kernel(name: str, x: Storage, out: Storage, target: Target, compute: Compute) -> tirx.PrimFunc:
    def body(source: Buffer, y: Buffer) -> None:
        operands = Operand(source, x), Operand(y, out)
        if x.blocked != out.blocked:
            convert(*operands, target, compute)
        else:
            elementwise([operands[0]], operands[1], target, compute)

    return kernel(name, [("x", x.bits, x.numel), ("y", out.bits, out.numel)], body)
