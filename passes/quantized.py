"""Writing and reading ``relax.quantize`` and ``relax.dequantize``, roundings to narrower floats, and constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.ir import GenericConst

from qcompile.ops import Affine
from qcompile.passes.base import array, dtype_of, op_name


@dataclass(frozen=True, slots=True)
class Operand:
    """What a layer reads: a tensor, and its quantization; None if it is float32."""

    expr: relax.Expr
    affine: Affine | None


@dataclass(frozen=True, slots=True)
class QuantizedConstant:
    """A constant in integers: ``real = scale * codes``; scale () or, along ``axis``, (n,) float32."""

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


def quantize(x: relax.Expr, q: Affine) -> relax.Call:
    return relax.op.quantize(x, relax.const(q.scale, "float32"), relax.const(q.zero_point, q.dtype), -1, q.dtype)


def dequantize(x: relax.Expr, q: Affine) -> relax.Call:
    return relax.op.dequantize(x, relax.const(q.scale, "float32"), relax.const(q.zero_point, q.dtype), -1, "float32")


def dequantize_constant(constant: QuantizedConstant) -> relax.Call:
    codes = relax.const(constant.codes)
    return relax.op.dequantize(codes, relax.const(constant.scale), relax.const(constant.zero_point), constant.axis)


def round_to(emit: Callable[[relax.Expr, str], relax.Var], x: relax.Expr, dtype: str, name: str) -> relax.Var:
    """float32 values rounded to a narrower type of floats."""
    return emit(relax.op.astype(emit(relax.op.astype(x, dtype), f"{name}.{dtype}"), "float32"), f"{name}.rounded")


def rounded_from(expr: relax.Expr, definitions: Mapping[relax.Var, relax.Expr]) -> tuple[relax.Expr, str] | None:
    """What ``round_to`` rounded, and to which type; None for anything else."""
    value = definitions.get(expr) if isinstance(expr, relax.Var) else None
    narrow = definitions.get(value.args[0]) if op_name(value) == "astype" else None
    if op_name(narrow) != "astype" or not isinstance(value.args[0], relax.Var):
        return None
    return narrow.args[0], dtype_of(value.args[0])


def stored_of(value: relax.Expr | None) -> np.ndarray | None:
    """The constant of a narrower type of floats that a cast to float32 reads, else None."""
    return array(value.args[0]) if op_name(value) == "astype" else None


def affine_of(value: relax.Expr | None) -> Affine | None:
    """The parameters of a quantize or dequantize with one uint8 or int8 scale for the whole tensor, else None."""
    kind = op_name(value)
    if kind not in ("quantize", "dequantize"):
        return None
    scale, zero_point = array(value.args[1]), array(value.args[2])
    dtype = str(value.attrs.out_dtype) if kind == "quantize" else str(value.args[0].ty.dtype)
    if scale is None or zero_point is None or scale.size != 1 or dtype not in ("uint8", "int8"):
        return None
    return Affine(float(scale.reshape(())), int(zero_point.reshape(())), dtype)


def constant_of(value: relax.Expr | None) -> QuantizedConstant | None:
    """The codes that a dequantize of a constant reads, else None."""
    if op_name(value) != "dequantize" or not isinstance(value.args[0], GenericConst):
        return None
    codes, scale, zero_point = (array(arg) for arg in value.args)
    return QuantizedConstant(codes, scale, zero_point, int(value.attrs.axis))
