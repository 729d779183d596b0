"""ARM's 8-bit products as ``Dot`` data. Activations are signed (``Target.activation`` is "int8"), as are weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from qcompile.targets.instructions import Dot

if TYPE_CHECKING:
    from tvm.ir import Expr

    from qcompile.ops import Affine

_LANES = 4  # of int32 in 128 bits
_OPAQUE = """
define i64 @qcompile.opaque(i64 %x) alwaysinline {
  %y = call i64 asm sideeffect "", "=r,0"(i64 %x) nounwind willreturn memory(inaccessiblemem: readwrite)
  ret i64 %y
}
"""


def sdot() -> Dot:
    """FEAT_DotProd: s8 x s8, four products a lane; all lanes can read the same quarter of a register."""
    return replace(_dot("sdot", 4, _sdot), ahead=4, pick=_quarter)


def smull() -> Dot:
    """ARMv8.0: smull makes eight exact int16 products, sadalp adds pairs of them to int32; two products a lane.

    128 * 128 fits int16, the sum of two such products does not; of 128 * 127 it does, so smlal adds another eight
    before sadalp where no weight is -128.
    """
    return replace(_dot("smull", 2, _smull), ahead=4, pick=_pair, accumulate_two=_smlal)


def smmla() -> Dot:
    """FEAT_I8MM: two pixels times two channels, eight products each; a vector of four channels takes two of them."""
    return replace(_dot("smmla", 8, _smmla), pixels=2, ahead=2)


def _dot(name: str, group: int, accumulate) -> Dot:
    return Dot(
        name=name,
        lanes=_LANES,
        group=group,
        spread=partial(_spread, group),
        each=_as_it_is,
        widen=_as_it_is,
        accumulate=accumulate,
        codes=_codes,
        steps=_steps,
        opaque=_opaque,
        llvm=_OPAQUE,
    )


def _spread(group: int, codes: Expr) -> Expr:
    """One group of codes in every lane."""
    from tvm import tirx

    word = tirx.reinterpret(f"int{8 * group}", codes)
    return tirx.reinterpret(f"int8x{_LANES * group}", tirx.Broadcast(word, _LANES))


def _codes(values: Expr, out: Affine, bounds: tuple[int, int], lanes: int) -> Expr:
    """Rounded to int32, narrowed to int16 and, with the zero point, to int8: every step saturates, as clipping does.

    What int16 cannot hold lies beyond int8 with any zero point, too. The zero point of what is never negative, -128, is
    not added: the same codes as uint8 have a 0 there, and differ in their highest bit.
    """
    from tvm import tirx

    def call(dtype: str, name: str, *operands: Expr) -> Expr:
        return tirx.call_llvm_pure_intrin(dtype, f"llvm.aarch64.neon.{name}", *operands)

    low, high = bounds
    unsigned = out.zero_point == -128
    bytes_ = []
    for half in range(0, lanes, 8):
        words = []
        for start in (half, half + 4):
            steps = call("int32x4", "fcvtns.v4i32.v4f32", _part(values, start, 4))
            words.append(call("int16x4", "sqxtn.v4i16", steps))
        codes = _joined(words, 4)
        if out.zero_point and not unsigned:
            zero = tirx.Broadcast(tirx.IntImm("int16", out.zero_point), 8)
            codes = call("int16x8", "sqadd.v8i16", codes, zero)
        bytes_.append(call("int8x8", "sqxtun.v8i8" if unsigned else "sqxtn.v8i8", codes))
    result = _joined(bytes_, 8)
    if unsigned:
        result = tirx.bitwise_xor(result, tirx.Broadcast(tirx.IntImm("int8", -128), lanes))
    if low > -128:
        result = tirx.Max(result, tirx.Broadcast(tirx.IntImm("int8", low), lanes))
    if high < 127:
        result = tirx.Min(result, tirx.Broadcast(tirx.IntImm("int8", high), lanes))
    return result


def _steps(codes: Expr, affine: Affine, lanes: int) -> Expr:
    """Widened to int16 by eights, where the zero point is subtracted, then by fours: no narrower vectors on the way."""
    from tvm import tirx

    floats = []
    for start in range(0, lanes, 8):
        words = tirx.Cast("int16x8", _part(codes, start, 8))
        if affine.zero_point:
            words = words - tirx.Broadcast(tirx.IntImm("int16", affine.zero_point), 8)
        for half in (0, 4):
            floats.append(tirx.Cast("float32x4", tirx.Cast("int32x4", _part(words, half, 4))))
    return _joined(floats, 4)


def _part(vector: Expr, start: int, count: int) -> Expr:
    """Some neighbouring lanes."""
    from tvm import tirx

    return tirx.Shuffle([vector], [tirx.IntImm("int32", start + i) for i in range(count)])


def _joined(parts: list[Expr], each: int) -> Expr:
    """Vectors of ``each`` lanes one after the other."""
    from tvm import tirx

    return tirx.Shuffle(parts, [tirx.IntImm("int32", i) for i in range(each * len(parts))])


def _opaque(index: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_extern("int64", "qcompile.opaque", tirx.Cast("int64", index))


def _quarter(codes: Expr, i: int) -> Expr:
    """LLVM makes it an operand of the product: ``sdot v0.4s, v1.16b, v2.4b[i]``."""
    from tvm import tirx

    words = tirx.reinterpret("int32x4", codes)
    quarter = tirx.Shuffle([words], [tirx.IntImm("int32", i)] * _LANES)
    return tirx.reinterpret("int8x16", quarter)


def _pair(codes: Expr, i: int) -> Expr:
    """One of four pairs in every lane: ``dup v0.4h, v1.h[i]``."""
    from tvm import tirx

    pairs = tirx.reinterpret("int16x4", codes)
    return tirx.reinterpret("int8x8", tirx.Shuffle([pairs], [tirx.IntImm("int32", i)] * _LANES))


def _as_it_is(value: Expr) -> Expr:
    return value


def _sdot(acc: Expr, a: Expr, w: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", acc, w, a)


def _smmla(acc: Expr, a: Expr, w: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.smmla.v4i32.v16i8", acc, a, w)


def _smull(acc: Expr, a: Expr, w: Expr) -> Expr:
    return acc + _pairs(_products(a, w))


def _smlal(acc: Expr, a: Sequence[Expr], w: Sequence[Expr]) -> Expr:
    return acc + _pairs(_products(a[0], w[0]) + _products(a[1], w[1]))


def _products(a: Expr, w: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_llvm_pure_intrin("int16x8", "llvm.aarch64.neon.smull.v8i16", a, w)


def _pairs(products: Expr) -> Expr:
    """Sums of neighbours in int32."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", products)
