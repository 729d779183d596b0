"""8-bit dot-product instructions as data: what a register tile needs to know, and the expression that computes it.

Each takes ``group`` neighbouring input channels of one pixel (codes as ``Target.activation`` says) and ``lanes`` output
channels: ``acc[l] += sum_g a[g] * w[l][g]``, exact in int32. ``Dot.reference`` says the same in numpy: what tests
compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tvm.ir import Expr


@dataclass(frozen=True, slots=True)
class Dot:
    """One instruction (or the exact short sequence that stands in for it).

    name: for reports. lanes: int32 results. group: products a lane.
    spread(codes): from ``group`` codes (a vector) to the operand that every lane reads; once a pixel.
    each(codes): from (lanes * group) codes, ``group`` for each lane, to the operand (depthwise: lane = channel).
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
        """acc (lanes,) int32; codes (group,) uint8 or int8; weights (lanes, group) int8 -> (lanes,) int32."""
        return acc + (weights.astype(np.int32) * codes.astype(np.int32)).sum(1, dtype=np.int32)


# Functions of this module with arguments bound, not closures: a ``Target`` goes to other processes as a pickle.


def _cast(dtype: str, value: Expr) -> Expr:
    from tvm import tirx

    return tirx.Cast(dtype, value)


def _reinterpret(dtype: str, value: Expr) -> Expr:
    from tvm import tirx

    return tirx.reinterpret(dtype, value)


def _as_it_is(value: Expr) -> Expr:
    return value


def vpdpbusd(bits: int) -> Dot:
    """AVX512-VNNI (512, 256, 128 bits), AVX-VNNI (256, 128 bits): u8 x s8, four products a lane, no saturation."""
    lanes = bits // 32
    return Dot(
        name=f"vpdpbusd.{bits}",
        lanes=lanes,
        group=4,
        spread=partial(_broadcast_bytes, lanes),
        each=partial(_reinterpret, f"int8x{4 * lanes}"),
        widen=_as_it_is,
        accumulate=partial(_dot_bytes, bits),
    )


def _broadcast_bytes(lanes: int, codes: Expr) -> Expr:
    """Four codes as one 32-bit value in every lane."""
    from tvm import tirx

    word = tirx.reinterpret("int32", codes)
    return tirx.reinterpret(f"int8x{4 * lanes}", tirx.Broadcast(word, lanes))


def _dot_bytes(bits: int, acc: Expr, a: Expr, w: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(f"int32x{bits // 32}", f"llvm.x86.avx512.vpdpbusd.{bits}", acc, a, w)


_PMADDWD = {128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}


def vpmaddwd(bits: int) -> Dot:
    """AVX2, AVX-512BW: operands widened to int16, so that no sum saturates (vpmaddubsw would); two products a lane."""
    lanes = bits // 32
    return Dot(
        name=f"vpmaddwd.{bits}",
        lanes=lanes,
        group=2,
        spread=partial(_broadcast_words, lanes),
        each=partial(_cast, f"int16x{2 * lanes}"),
        widen=partial(_cast, f"int16x{2 * lanes}"),
        accumulate=partial(_dot_words, bits),
    )


def _broadcast_words(lanes: int, codes: Expr) -> Expr:
    """Two codes, widened, as one 32-bit value in every lane."""
    from tvm import tirx

    pair = tirx.reinterpret("int32", tirx.Cast("int16x2", codes))
    return tirx.reinterpret(f"int16x{2 * lanes}", tirx.Broadcast(pair, lanes))


def _dot_words(bits: int, acc: Expr, a: Expr, w: Expr) -> Expr:
    from tvm import tirx

    return acc + tirx.call_llvm_pure_intrin(f"int32x{bits // 32}", _PMADDWD[bits], a, w)
