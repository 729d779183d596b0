"""A few words on top of TVM's IR builder, in which the kernels are written.

Kernels are written as loop nests, not as schedules over a naive nest: register tiles, tails, borders and epilogues are
then plain Python, building one takes milliseconds, and what is written is what LLVM gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.ops import Affine, Epilogue
from qcompile.reference.arithmetic import code_bounds, out_scale, ratio
from qcompile.reference.narrow import NARROW
from qcompile.targets.instructions import Dot
from qcompile.targets.storage import Storage

Buffer = Any  # a TIR buffer variable
Index = Any  # int or TIR expression
CACHE_LINE = 64  # bytes, of every target


def kernel(
    name: str, buffers: Sequence[tuple[str, str, int]], body: Callable[..., None], llvm: str = ""
) -> tirx.PrimFunc:
    """A function over flat buffers (name, dtype, elements), the last ones its outputs; ``body`` emits statements.

    llvm: functions in LLVM's assembly that it calls; they become part of it.
    """
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
        arguments = [T.arg(arg, T.buffer((elements,), dtype)) for arg, dtype, elements in buffers]
        with T.attr(tirx.const(0, "int32"), "pragma_import_llvm", llvm) if llvm else nullcontext():
            body(*arguments)
    return builder.get().without_attr("global_symbol")


@contextmanager
def loop(extent: int, parallel: bool = False) -> Iterator[Index]:
    """``for i in range(extent)``; no loop at all, and i = 0, where the extent is 1."""
    if extent == 1:
        yield 0
    else:
        with T.parallel(0, extent) if parallel else T.serial(0, extent) as i:
            yield i


def tiles(extent: int, size: int) -> list[tuple[int, int, int]]:
    """A loop cut into equal tiles and a remainder: (start, tile size, how many)."""
    whole, rest = divmod(extent, size)
    return [(0, size, whole)] * bool(whole) + [(whole * size, rest, 1)] * bool(rest)


def load(buffer: Buffer, offset: Index, lanes: int) -> Expr:
    """``lanes`` neighbouring elements as a vector."""
    return buffer[T.ramp(offset, 1, lanes)] if lanes > 1 else buffer[offset]


def load_part(buffer: Buffer, offset: Index, lanes: int, present: int) -> Expr:
    """``lanes`` neighbouring elements, of which the first ``present`` are read; the others are 0."""
    if present == lanes:
        return load(buffer, offset, lanes)
    zero = tirx.const(0, buffer.dtype)
    return tirx.Shuffle(
        [*(buffer[offset + i] for i in range(present)), *[zero] * (lanes - present)], list(range(lanes))
    )


def joined(vectors: Sequence[Expr], lanes: int) -> Expr:
    """Vectors one after the other as one of ``lanes``."""
    if len(vectors) == 1:
        return vectors[0]
    return tirx.Shuffle(list(vectors), [tirx.IntImm("int32", i) for i in range(lanes)])


def store(buffer: Buffer, offset: Index, value: Expr, lanes: int) -> None:
    T.buffer_store(buffer, value, [T.ramp(offset, 1, lanes) if lanes > 1 else offset])


def prefetch(buffer: Buffer, offset: Index) -> None:
    """Asks for the cache line of an element, which may lie behind the buffer's end: nothing is read."""
    hints = [tirx.const(hint, "int32") for hint in (0, 3, 1)]  # to read, into all caches, data
    T.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", T.address_of(buffer[offset]), *hints))


def bind(value: Expr) -> Expr:
    """Computed once, here."""
    return T.bind(value)


def registers(elements: int, dtype: str) -> Buffer:
    """A small buffer that LLVM turns into registers, as every index into it is constant once loops are written out.

    The annotation keeps TVM from putting it on the heap, where it stays if it is larger than 1 KiB.
    """
    return T.alloc_buffer((elements,), dtype, scope="local", annotations={"disable_lower_builtin": True})


def cast(dtype: str, value: Expr, lanes: int) -> Expr:
    return tirx.Cast(vector(dtype, lanes), value)


def vector(dtype: str, lanes: int) -> str:
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def splat(value: float, dtype: str, lanes: int) -> Expr:
    """The same constant in every lane."""
    scalar = tirx.const(value, dtype)
    return tirx.Broadcast(scalar, lanes) if lanes > 1 else scalar


def real(value: Expr, dtype: str, lanes: int) -> Expr:
    """Elements of a storage of floats as float32."""
    if dtype != "bfloat16":
        return value
    bits = cast("uint32", value, lanes) << splat(16, "uint32", lanes)
    return tirx.reinterpret(vector("float32", lanes), bits)


STORED_AS_BITS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # weights whose type no code generator knows


def decoded(weights: Expr, dtype: str, lanes: int) -> Expr:
    """Weights of a float layer as float32, whatever they are stored in; without their scale, if they have one."""
    if "float8" in dtype:
        return _from_bits8(weights, dtype, lanes)
    return real(weights, dtype, lanes) if dtype in ("float32", "bfloat16") else cast("float32", weights, lanes)


def _from_bits8(bits: Expr, dtype: str, lanes: int) -> Expr:
    """Finite 8-bit floats as float32: exponent and fraction are moved, and a product makes up for the other bias."""
    row = NARROW[dtype]
    wide = bind(cast("uint32", bits, lanes))
    size = (wide & splat(0x7F, "uint32", lanes)) << splat(23 - row.mantissa, "uint32", lanes)
    sign = (wide & splat(0x80, "uint32", lanes)) << splat(24, "uint32", lanes)
    value = tirx.reinterpret(vector("float32", lanes), size | sign)
    return value * splat(2.0 ** (126 + row.least), "float32", lanes)


def stored(value: Expr, dtype: str, lanes: int, narrow: Callable[[Expr], Expr] | None = None) -> Expr:
    """float32 as elements of a storage of floats: to bfloat16, to nearest, ties to even, NaN to NaN.

    narrow: the instruction that does so, see ``Dot``.
    """
    if dtype != "bfloat16":
        return value
    if narrow is not None:
        return narrow(value)
    bits = bind(tirx.reinterpret(vector("uint32", lanes), bind(value)))
    magnitude = bits & splat(0x7FFFFFFF, "uint32", lanes)
    odd = (bits >> splat(16, "uint32", lanes)) & splat(1, "uint32", lanes)
    nearest = (bits + odd + splat(0x7FFF, "uint32", lanes)) >> splat(16, "uint32", lanes)
    nan = magnitude > splat(0x7F800000, "uint32", lanes)
    return cast("uint16", tirx.Select(nan, splat(0x7FC0, "uint32", lanes), nearest), lanes)


def rounded(product: Expr, lanes: int) -> Expr:
    """A float32 product that no later addition may absorb.

    TVM's LLVM backend contracts every ``a * b + c`` into a fused multiply-add, whose single rounding no oracle in numpy
    (and no other target) reproduces; the fence stops it.
    """
    suffix = f"v{lanes}f32" if lanes > 1 else "f32"
    return tirx.call_llvm_pure_intrin(vector("float32", lanes), f"llvm.arithmetic.fence.{suffix}", product)


def first_sum(bias: Buffer, offset: Index, lanes: int, integer: bool) -> Expr:
    """What an accumulator starts with: biases, widened to int32 in an integer layer (they may be stored in 16 bits)."""
    vector = load(bias, offset, lanes)
    return bind(cast("int32", vector, lanes) if integer else vector)


def scaled(total: Expr, multiplier: Expr | None, lanes: int) -> Expr:
    """``f32(sum) * multiplier`` of an integer layer; a float layer's sum (no multiplier) as it is."""
    return total if multiplier is None else rounded(cast("float32", total, lanes) * multiplier, lanes)


def nearest_int(value: Expr, lanes: int) -> Expr:
    """float32 to int32, ties to even; the value must lie in int32's range."""
    suffix = f"v{lanes}i32.v{lanes}f32" if lanes > 1 else "i32.f32"
    return tirx.call_llvm_pure_intrin(vector("int32", lanes), f"llvm.lrint.{suffix}", value)


def to_codes(value: Expr, out: Affine, bounds: tuple[int, int], lanes: int) -> Expr:
    """``clip(round_half_even(v), lo - z, hi - z) + z`` as ``out.dtype``; v in steps of ``out.scale``.

    The bounds are integers, so clipping first gives the same code and keeps the conversion inside int32.
    max(NaN, bound) is the bound: only ``quantize`` sees NaN, and handles it before.
    """
    low, high = (float(b - out.zero_point) for b in bounds)
    clipped = tirx.Min(tirx.Max(value, splat(low, "float32", lanes)), splat(high, "float32", lanes))
    code = nearest_int(clipped, lanes)
    if out.zero_point:
        code = code + splat(out.zero_point, "int32", lanes)
    return cast(out.dtype, code, lanes)


def real_steps(codes: Expr, affine: Affine, lanes: int) -> Expr:
    """``f32(code - zero_point)``, exact."""
    wide = cast("int32", codes, lanes)
    if affine.zero_point:
        wide = wide - splat(affine.zero_point, "int32", lanes)
    return cast("float32", wide, lanes)


def clip_real(value: Expr, clip: tuple[float, float] | None, lanes: int) -> Expr:
    """``clip(v, *clip)`` for float results; an infinite bound costs nothing."""
    if clip is None:
        return value
    low, high = clip
    if low != float("-inf"):
        value = tirx.Max(value, splat(low, "float32", lanes))
    if high != float("inf"):
        value = tirx.Min(value, splat(high, "float32", lanes))
    return value


def finish(value: Expr, epilogue: Epilogue, lanes: int, residual: Expr | None = None, dot: Dot | None = None) -> Expr:
    """``qcompile.ops.Epilogue`` on a vector ``v``; ``residual`` is the loaded vector of the other tensor.

    dot: may know better how to convert several vectors at once (``Dot.codes``, ``Dot.steps``).
    """
    several = dot is not None and lanes > dot.lanes and lanes % 8 == 0
    if residual is not None:
        if epilogue.residual is not None:
            factor = float(ratio(epilogue.residual.scale, out_scale(epilogue)))
            better = several and dot.steps and epilogue.residual.dtype == "int8"
            steps = (dot.steps if better else real_steps)(residual, epilogue.residual, lanes)
            residual = rounded(steps * splat(factor, "float32", lanes), lanes)
        value = value + residual
    if epilogue.out is None:
        return clip_real(value, epilogue.clip, lanes)
    bounds = code_bounds(epilogue.out, epilogue.clip)
    better = several and dot.codes and epilogue.out.dtype == "int8"
    return (dot.codes if better else to_codes)(value, epilogue.out, bounds, lanes)


def fill_border(buffer: Buffer, storage: Storage, n: Index, block: Index) -> None:
    """Writes ``storage.fill`` into the border of one (image, channel block) plane."""
    if not any(storage.border):
        return
    top, left, bottom, right = storage.border
    _, _, height, width = storage.image
    size = storage.block
    value = splat(storage.fill, storage.bits, size)  # of bfloat16, 0

    def run(start: Index, pixels: int) -> None:
        with loop(pixels) as i:
            store(buffer, start + i * size, value, size)

    row_pixels = storage.row // size
    plane = storage.pixel(n, block, -top, -left)
    if top:
        run(plane, top * row_pixels)
    if bottom:
        run(plane + (top + height) * storage.row, bottom * row_pixels)
    if left or right:
        with loop(height) as h:
            row = plane + (top + h) * storage.row
            if left:
                run(row, left)
            if right:
                run(row + (left + width) * size, right)
