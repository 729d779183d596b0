"""Between plain (N, C, H, W) and blocked storage: 16 pixels of a block's channels are transposed in registers.

Codes are transposed as 32-bit words of four channels each, which needs a quarter of the shuffles, bfloat16 as words of
two; float32 one by one.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from qcompile.targets.kernels.builder import bind, cast, load, loop, splat, store
from qcompile.targets.kernels.sweep import (
    Compute,
    Operand,
    borders,
    chunks,
    each_element,
    parallel,
    pixel_lanes,
    store_pixel,
)
from qcompile.targets.storage import BLOCK, Storage
from qcompile.targets.target import Target

_PIXELS = 16  # pixels transposed at once
_DTYPES = ("uint8", "int8", "float32", "bfloat16")


def convert(x: Operand, out: Operand, target: Target, compute: Compute) -> None:
    """``out[i] = compute(x[i], lanes)``, one of the two blocked and the other plain; borders included."""
    blocked, plain = (x, out) if x.storage.blocked else (out, x)
    block = blocked.storage.block
    n, _, height, width = blocked.storage.image
    fork = parallel(target, x.storage, out.storage)
    if height * width == 1:
        _one_pixel(x, out, compute)
    elif block in (1, 2, 3, 4, BLOCK) and blocked.storage.dtype in _DTYPES:
        one_row = blocked.storage.contiguous_pixels
        lines, length = (1, height * width) if one_row else (height, width)
        for first, channels, count in pixel_lanes(blocked.storage):
            with loop(n * count * lines, fork) as i:
                image, group, line = i // lines // count, first + i // lines % count, i % lines
                base = blocked.storage.pixel(image, group, line, 0)
                plane = _plane(plain.storage, image, group * block) + line * length
                for start, lanes, tiles in chunks(length, _PIXELS):
                    with loop(tiles) as t:
                        pixel = start + t * lanes
                        move = _to_blocked if blocked is out else _to_plain
                        at = base + pixel * block, plane + pixel, height * width
                        move(x, out, *at, channels, lanes, compute, target)
    else:
        each_element(out, lambda index: compute(load(x.buffer, x.storage.at(*index), 1), 1), fork)
    borders(out)


def _plane(plain: Storage, n, channel):
    """Start of a channel's plane in a plain image or sequence."""
    return plain.at(n, channel, *(0 for _ in plain.shape[2:]))


def _one_pixel(x: Operand, out: Operand, compute: Compute) -> None:
    """Images of one pixel: their channels lie side by side in both."""
    blocked = x.storage if x.storage.blocked else out.storage
    for first, lanes, count in pixel_lanes(blocked):
        with loop(blocked.image[0]) as n, loop(count) as i:
            group = first + i
            spatial = (0,) * (len(blocked.shape) - 2)
            source, target = (o.storage.at(n, group * blocked.block, *spatial) for o in (x, out))
            value = compute(load(x.buffer, source, lanes), lanes)
            if out.storage.blocked:
                store_pixel(out, target, value, lanes)
            else:
                store(out.buffer, target, value, lanes)


def _to_blocked(
    x: Operand, out: Operand, base, plane, stride: int, channels: int, lanes: int, compute: Compute, target: Target
) -> None:
    dtype, block = out.storage.bits, out.storage.block
    vectors = [bind(compute(load(x.buffer, plane + c * stride, lanes), lanes)) for c in range(channels)]
    vectors += [splat(0, dtype, lanes)] * (block - channels)
    short = target.vector_bits // 8 <= BLOCK
    store(out.buffer, base, interleave(vectors, dtype, lanes, short), lanes * block)


def _to_plain(
    x: Operand, out: Operand, base, plane, stride: int, channels: int, lanes: int, compute: Compute, target: Target
) -> None:
    block = x.storage.block
    vectors = deinterleave(bind(load(x.buffer, base, lanes * block)), x.storage.bits, block, lanes)
    for c in range(channels):
        store(out.buffer, plane + c * stride, compute(vectors[c], lanes), lanes)


def interleave(vectors: list[Expr], dtype: str, lanes: int, short: bool = False) -> Expr:
    """``result[pixel * len(vectors) + c] = vectors[c][pixel]``; a power of two of vectors, or three.

    dtype: "float32", or unsigned or signed integers of 8 or 16 bits. short: of a machine whose registers hold a block
    of codes: three of them are stored so by one instruction (ARM's st3); those of longer vectors have none.
    """
    if len(vectors) == 1:
        return vectors[0]
    if len(vectors) == 3 and short:
        return shuffle(vectors, [c * lanes + p for p in range(lanes) for c in range(3)])
    if len(vectors) > 2 and dtype != "float32":
        size = 32 // _width(dtype)
        words = [_pack_word(vectors[i : i + size], _width(dtype), lanes) for i in range(0, len(vectors), size)]
        quads = _reinterpret(_zip(words, lanes), dtype, size * lanes * len(words))
        if len(vectors) == 3:
            return shuffle([bind(quads)], [4 * p + c for p in range(lanes) for c in range(3)])
        return quads
    return _zip(vectors, lanes)


def deinterleave(pixels: Expr, dtype: str, block: int, lanes: int) -> list[Expr]:
    """``result[c][pixel] = pixels[pixel * block + c]``."""
    if block == 1:
        return [pixels]
    if dtype == "float32" or block in (2, 3):
        return _unzip(pixels, block, lanes)
    width = _width(dtype)
    size = 32 // width
    words = _unzip(_reinterpret(pixels, "uint32", lanes * block // size), block // size, lanes)
    mask = splat(2**width - 1, "uint32", lanes)
    shifted = [w if i == 0 else w >> splat(width * i, "uint32", lanes) for w in words for i in range(size)]
    return [cast(dtype, w & mask, lanes) for w in shifted]


def _width(dtype: str) -> int:
    """Bits of an integer."""
    return int(dtype.lstrip("uint"))


def shuffle(vectors: list[Expr], lanes: list[int]) -> Expr:
    """The chosen lanes of the concatenation of ``vectors``."""
    indices = [tirx.IntImm("int32", i) for i in lanes]
    return tirx.Shuffle(vectors, indices)


def _pack_word(elements: list[Expr], width: int, lanes: int) -> Expr:
    """Vectors of integers of ``width`` bits as one of 32-bit words, the first in the lowest bits."""
    word = None
    for i, vector in enumerate(elements):
        part = cast("uint32", cast(f"uint{width}", vector, lanes), lanes)
        part = part << splat(width * i, "uint32", lanes) if i else part
        word = part if word is None else word | part
    return bind(word)


def _reinterpret(vector: Expr, dtype: str, lanes: int) -> Expr:
    return tirx.reinterpret(dtype if lanes == 1 else f"{dtype}x{lanes}", vector)


def _zip(vectors: list[Expr], lanes: int) -> Expr:
    """Lane by lane: a tree of interleavings of two vectors, which hardware has instructions for."""
    if len(vectors) == 1:
        return vectors[0]
    if len(vectors) % 2:
        return shuffle(vectors, [c * lanes + p for p in range(lanes) for c in range(len(vectors))])
    half = len(vectors) // 2
    even, odd = (bind(_zip(vectors[i::2], lanes)) for i in range(2))
    size = half * lanes
    return shuffle([even, odd], [i // 2 + i % 2 * size for i in range(2 * size)])


def _unzip(pixels: Expr, parts: int, lanes: int) -> list[Expr]:
    if parts == 1:
        return [pixels]
    if parts % 2:
        return [bind(shuffle([pixels], [parts * p + c for p in range(lanes)])) for c in range(parts)]
    halves = [bind(shuffle([pixels], [2 * i + part for i in range(parts * lanes // 2)])) for part in range(2)]
    even, odd = (_unzip(half, parts // 2, lanes) for half in halves)
    return [v for pair in zip(even, odd, strict=True) for v in pair]
