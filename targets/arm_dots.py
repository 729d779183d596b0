"""ARM's 8-bit products as ``Dot`` data. Activations are signed (``Target.activation`` is "int8"), as are weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from qcompile.targets.instructions import Dot

if TYPE_CHECKING:
    from tvm.ir import Expr

_LANES = 4  # of int32 in 128 bits


def sdot() -> Dot:
    """FEAT_DotProd: s8 x s8, four products a lane; all lanes can read the same quarter of a register."""
    return replace(_dot("sdot", 4, _sdot), ahead=4, pick=_quarter)


def smull() -> Dot:
    """ARMv8.0: smull makes eight exact int16 products, sadalp adds pairs of them to int32; two products a lane.

    128 * 128 fits int16, the sum of two such products does not: so no smlal before sadalp, which gains a third where
    no weight is -128.
    """
    return _dot("smull", 2, _smull)


def _dot(name: str, group: int, accumulate) -> Dot:
    return Dot(
        name=name,
        lanes=_LANES,
        group=group,
        spread=partial(_spread, group),
        each=_as_it_is,
        widen=_as_it_is,
        accumulate=accumulate,
    )


def _spread(group: int, codes: Expr) -> Expr:
    """One group of codes in every lane."""
    from tvm import tirx

    word = tirx.reinterpret(f"int{8 * group}", codes)
    return tirx.reinterpret(f"int8x{_LANES * group}", tirx.Broadcast(word, _LANES))


def _quarter(codes: Expr, i: int) -> Expr:
    """LLVM makes it an operand of the product: ``sdot v0.4s, v1.16b, v2.4b[i]``."""
    from tvm import tirx

    words = tirx.reinterpret("int32x4", codes)
    quarter = tirx.Shuffle([words], [tirx.IntImm("int32", i)] * _LANES)
    return tirx.reinterpret("int8x16", quarter)


def _as_it_is(value: Expr) -> Expr:
    return value


def _sdot(acc: Expr, a: Expr, w: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", acc, w, a)


def _smull(acc: Expr, a: Expr, w: Expr) -> Expr:
    from tvm import tirx

    products = tirx.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.smull.v8i16", a, w)
    return acc + tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", products)
