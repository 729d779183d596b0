"""Dot-product instructions as data: what a register tile needs to know, and the expression that computes it.

Each takes ``group`` neighbouring input channels of one pixel and ``lanes`` output channels:
``acc[l] += sum_g a[g] * w[l][g]``, of codes (as ``Target.activation`` says) and int8 weights exactly in int32, or of
bfloat16 numbers (bits, as uint16) in float32. ``Dot.reference`` says the same in numpy: what tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from qcompile.reference.bfloat16 import from_bits

if TYPE_CHECKING:
    from tvm.ir import Expr


@dataclass(frozen=True, slots=True)
class Dot:
    """One instruction (or the exact short sequence that stands in for it).

    name: for reports. lanes: results. group: products a lane.
    spread(codes): from ``group`` activations (a vector) to the operand that every lane reads; once a pixel.
    each(codes): from (lanes * group) activations, ``group`` for each lane, to the operand (depthwise: lane = channel).
    widen(weights): from (lanes * group) weights to the operand; once a weight vector.
    accumulate(acc, spread, widened): the new accumulator.
    accumulate_two(acc, spreads, widened): the same of two steps, in fewer instructions; exact if no weight is -128.
    None where there is nothing to be gained.
    pick(codes, i): from (ahead * group) activations, loaded at once, to the operand of the i-th of ``ahead`` steps; for
    instructions that read one part of a register for all lanes, else None.
    codes(values, out, bounds, lanes): float32 results, a multiple of 8, as int8 codes, as ``kernels.builder.to_codes``
    makes them, where instructions that saturate do it better; else None. NaN becomes the zero point.
    steps(codes, affine, lanes): int8 codes, a multiple of 8, as ``kernels.builder.real_steps`` makes them; None
    without ``codes``.
    pixels: 2 for matrix products, see ``kernels.contract_pairs``; they have no ``spread`` and ``each``.
    narrow(sums): from ``lanes`` float32 to bfloat16 in one instruction, for which numbers below 2^-126 count as 0; None
    where there is none.
    opaque(index): the same number (int64), of which LLVM knows nothing, so that what is loaded there in a loop is not
    kept from one iteration to the next; None where that never matters.
    sums: dtype of the accumulator. needs: a feature beyond those of the row. products: vector FMAs or dot products that
    one ``accumulate`` costs. llvm: functions that ``accumulate`` calls, to be compiled along with the kernel.
    """

    name: str
    lanes: int
    group: int
    spread: Callable[[Expr], Expr]
    each: Callable[[Expr], Expr]
    widen: Callable[[Expr], Expr]
    accumulate: Callable[[Expr, Expr, Expr], Expr]
    sums: str = "int32"
    needs: str = ""
    products: int = 1
    llvm: str = ""
    narrow: Callable[[Expr], Expr] | None = None
    ahead: int = 1
    pixels: int = 1
    pick: Callable[[Expr, int], Expr] | None = None
    codes: Callable[..., Expr] | None = None
    steps: Callable[..., Expr] | None = None
    accumulate_two: Callable[..., Expr] | None = None
    opaque: Callable[[Expr], Expr] | None = None

    def reference(self, acc: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """acc (lanes,) int32; codes (group,) uint8 or int8; weights (lanes, group) int8 -> (lanes,) int32.

        Of bfloat16: acc and the result float32, codes and weights uint16; within float tolerance.
        """
        if self.sums == "float32":
            return acc + (from_bits(weights) * from_bits(codes)).sum(1, dtype=np.float32)
        return acc + (weights.astype(np.int32) * codes.astype(np.int32)).sum(1, dtype=np.int32)

    def for_weights(self, weights: np.ndarray) -> Dot:
        """This dot product without what is not exact for some of these weights."""
        return self if weights.min(initial=0) > -128 else replace(self, accumulate_two=None)


def narrowest(dots: tuple[Dot, ...], channels: int) -> Dot | None:
    """Of a dot product at its widest and narrower, the narrowest that holds so many channels, the widest for more."""
    return next((dot for dot in reversed(dots) if dot.lanes >= channels), dots[0] if dots else None)


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


def vdpbf16ps(bits: int) -> Dot:
    """AVX512-BF16: two products a lane; sums of unspecified order, numbers below 2^-126 count as 0."""
    lanes = bits // 32
    return Dot(
        name=f"vdpbf16ps.{bits}",
        lanes=lanes,
        group=2,
        spread=partial(_broadcast_pair, lanes),
        each=partial(_reinterpret, f"int32x{lanes}"),
        widen=partial(_reinterpret, f"int32x{lanes}"),
        accumulate=partial(_dot_bfloat16, bits),
        sums="float32",
        needs="avx512_bf16",
        llvm=_DPBF16PS.format(bits=bits, lanes=lanes, pairs=2 * lanes)
        + (_CVTNEPS2BF16.format(bits=bits, lanes=lanes) if bits > 128 else ""),
        narrow=partial(_to_bfloat16, bits) if bits > 128 else None,
    )


# TVM turns every bfloat16 into float32 before LLVM sees it, so the instruction is wrapped in a function on integers.
_DPBF16PS = """
declare <{lanes} x float> @llvm.x86.avx512bf16.dpbf16ps.{bits}(<{lanes} x float>, <{pairs} x bfloat>, <{pairs} x bfloat>)
define <{lanes} x float> @qcompile.dpbf16ps.{bits}(<{lanes} x float> %acc, <{lanes} x i32> %a, <{lanes} x i32> %w) {{
  %x = bitcast <{lanes} x i32> %a to <{pairs} x bfloat>
  %y = bitcast <{lanes} x i32> %w to <{pairs} x bfloat>
  %sum = call <{lanes} x float> @llvm.x86.avx512bf16.dpbf16ps.{bits}(<{lanes} x float> %acc, <{pairs} x bfloat> %x, <{pairs} x bfloat> %y)
  ret <{lanes} x float> %sum
}}
"""  # noqa: E501


_CVTNEPS2BF16 = """
declare <{lanes} x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.{bits}(<{lanes} x float>)
define <{lanes} x i16> @qcompile.cvtneps2bf16.{bits}(<{lanes} x float> %x) {{
  %y = call <{lanes} x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.{bits}(<{lanes} x float> %x)
  %bits = bitcast <{lanes} x bfloat> %y to <{lanes} x i16>
  ret <{lanes} x i16> %bits
}}
"""


def _to_bfloat16(bits: int, sums: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_pure_extern(f"uint16x{bits // 32}", f"qcompile.cvtneps2bf16.{bits}", sums)


def _broadcast_pair(lanes: int, pair: Expr) -> Expr:
    """Two numbers as one 32-bit value in every lane."""
    from tvm import tirx

    return tirx.Broadcast(tirx.reinterpret("int32", pair), lanes)


def _dot_bfloat16(bits: int, acc: Expr, a: Expr, w: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_pure_extern(f"float32x{bits // 32}", f"qcompile.dpbf16ps.{bits}", acc, a, w)


def widened_bfloat16(bits: int) -> Dot:
    """Any vector unit with FMA: both numbers of a pair as float32, one FMA each. As exact, at half the speed of float32
    and less."""
    lanes = bits // 32
    return Dot(
        name=f"fma.{bits}",
        lanes=lanes,
        group=2,
        spread=partial(_broadcast_pair, lanes),
        each=partial(_reinterpret, f"int32x{lanes}"),
        widen=partial(_reinterpret, f"int32x{lanes}"),
        accumulate=partial(_fma_pairs, lanes),
        sums="float32",
        products=2,
    )


def _fma_pairs(lanes: int, acc: Expr, a: Expr, w: Expr) -> Expr:
    from tvm import tirx

    def halves(pair: Expr) -> tuple[Expr, Expr]:
        low = tirx.shift_left(pair, tirx.Broadcast(tirx.const(16, "int32"), lanes))
        high = tirx.bitwise_and(pair, tirx.Broadcast(tirx.const(-65536, "int32"), lanes))
        return _reinterpret(f"float32x{lanes}", low), _reinterpret(f"float32x{lanes}", high)

    (a0, a1), (w0, w1) = halves(a), halves(w)
    return acc + a0 * w0 + a1 * w1
