"""8-bit dot-product instructions as data: what a register tile needs to know, and the expression that computes it.

Each takes ``group`` neighbouring input channels of one pixel (unsigned codes) and ``lanes`` output channels:
``acc[l] += sum_g a[g] * w[l][g]``, exact in int32. ``Dot.reference`` says the same in numpy: what tests compare
with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tvm.ir import Expr


@dataclass(frozen=True, slots=True)
class Dot:
    """One instruction (or the exact short sequence that stands in for it).

    name: for reports. lanes: int32 results. group: products a lane.
    spread(codes): from ``group`` uint8 codes (a vector) to the operand that every lane reads; once a pixel.
    each(codes): from (lanes * group) uint8 codes, ``group`` for each lane, to the operand (depthwise: lane = channel).
    widen(weights): from (lanes * group) int8 weights to the operand; once a weight vector.
    accumulate(acc, spread, widened): the new accumulator.
    """

    name: str
    lanes: int
    group: int
    spread: Callable[[Expr], Expr]
    each: Callable[[Expr], Expr]
    widen: Callable[[Expr], Expr]
    accumulate: Callable[[Expr, Expr, Expr], Expr]

    def reference(self, acc: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """acc (lanes,) int32; codes (group,) uint8; weights (lanes, group) int8 -> (lanes,) int32."""
        return acc + (weights.astype(np.int32) * codes.astype(np.int32)).sum(1, dtype=np.int32)


def _intrinsic(dtype: str, name: str, *args: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(dtype, name, *args)


def _cast(dtype: str) -> Callable[[Expr], Expr]:
    def cast(value: Expr) -> Expr:
        from tvm import tirx

        return tirx.Cast(dtype, value)

    return cast


def _reinterpret(dtype: str) -> Callable[[Expr], Expr]:
    def reinterpret(value: Expr) -> Expr:
        from tvm import tirx

        return tirx.reinterpret(dtype, value)

    return reinterpret


def _broadcast_bytes(lanes: int) -> Callable[[Expr], Expr]:
    """Four codes as one 32-bit value in every lane."""

    def spread(codes: Expr) -> Expr:
        from tvm import tirx

        word = tirx.reinterpret("int32", codes)
        return tirx.reinterpret(f"int8x{4 * lanes}", tirx.Broadcast(word, lanes))

    return spread


def vpdpbusd(bits: int) -> Dot:
    """AVX512-VNNI (512, 256, 128 bits), AVX-VNNI (256, 128 bits): u8 x s8, four products a lane, no saturation."""
    lanes = bits // 32
    return Dot(
        name=f"vpdpbusd.{bits}",
        lanes=lanes,
        group=4,
        spread=_broadcast_bytes(lanes),
        each=_reinterpret(f"int8x{4 * lanes}"),
        widen=lambda weights: weights,
        accumulate=lambda acc, a, w: _intrinsic(f"int32x{lanes}", f"llvm.x86.avx512.vpdpbusd.{bits}", acc, a, w),
    )


_PMADDWD = {128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}


def vpmaddwd(bits: int) -> Dot:
    """AVX2, AVX-512BW: operands widened to int16, so that no sum saturates (vpmaddubsw would); two products a lane."""
    lanes = bits // 32
    name = _PMADDWD[bits]

    def spread(codes: Expr) -> Expr:
        from tvm import tirx

        pair = tirx.reinterpret("int32", tirx.Cast("int16x2", codes))
        return tirx.reinterpret(f"int16x{2 * lanes}", tirx.Broadcast(pair, lanes))

    return Dot(
        name=f"vpmaddwd.{bits}",
        lanes=lanes,
        group=2,
        spread=spread,
        each=_cast(f"int16x{2 * lanes}"),
        widen=_cast(f"int16x{2 * lanes}"),
        accumulate=lambda acc, a, w: acc + _intrinsic(f"int32x{lanes}", name, a, w),
    )
