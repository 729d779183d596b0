"""Depthwise convolution: every lane of a vector is a channel with a window of its own.

On codes, a dot-product instruction sums ``group`` taps of a window row at once: ``group`` neighbouring pixels of a
channel block are loaded as they lie, [pixel][channel], and one shuffle makes them [channel][pixel]. A shuffled chunk
serves as many neighbouring output pixels as fit their windows into it, each with the weights moved on by its stride::

    chunk   x0 x1 x2 x3        3 taps, stride 1
    y0      w0 w1 w2  0
    y1       0 w0 w1 w2

On floats, one FMA a tap; bfloat16 numbers become float32 as they are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from qcompile.ops import Conv2d
from qcompile.reference.narrow import to_bits
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.conv import Constants, Kernel, layer_kernel, shifted_bias
from qcompile.targets.kernels.parallel import worth_threads
from qcompile.targets.storage import BLOCK, Storage
from qcompile.targets.target import Target

Weights = Callable[[], Iterator[list[Expr]]]  # operands in the order of their use: parts for each chunk and its pixels

_EPILOGUE, _TILE = 4.0, 12.0  # cycles to finish an output vector, and to begin and end a tile
_COLUMNS = 16  # output pixels of a tile: as many accumulators, the rest of the registers hold weights


@dataclass(frozen=True, slots=True)
class Strip:
    """The tile: ``columns`` neighbouring output pixels of a row, for one vector of channels."""

    columns: int

    @property
    def results(self) -> int:
        """Vectors that are summed up at a time."""
        return self.columns


@dataclass(frozen=True, slots=True)
class Chunks:
    """How a window row is cut for a dot product.

    taps: first tap of each chunk. shared: neighbouring output pixels that one chunk serves (windows of up to ``group``
    taps).
    """

    group: int
    taps: tuple[int, ...]
    shared: int

    @staticmethod
    def of(width: int, stride: int, dilation: int, group: int) -> Chunks:
        if width <= group and dilation == 1:
            return Chunks(group, (0,), (group - width) // stride + 1)
        return Chunks(group, tuple(range(0, width, group)), 1)

    def sources(self, width: int, stride: int) -> list[list[int | None]]:
        """For each chunk and each output pixel that it serves: the tap that meets each element, None for none."""
        rows = []
        for first in self.taps:
            end = min(width, first + self.group)
            for j in range(self.shared):
                taps = [first + g - j * stride for g in range(self.group)]
                rows.append([t if first <= t < end else None for t in taps])
        return rows


def is_depthwise(spec: Conv2d, weight_shape: tuple[int, ...]) -> bool:
    """One output channel for each input channel."""
    return spec.groups > 1 and spec.groups == weight_shape[0] and weight_shape[1] == 1


def depthwise_conv2d(
    spec: Conv2d,
    constants: Constants,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    target: Target,
    tile: Strip | None = None,
) -> Kernel:
    """x, out, residual: blocked, x's border at least the padding. weight: (C, 1, KH, KW) or (C, 1, KW)."""
    weight = constants.weight if constants.weight.ndim == 4 else constants.weight[:, :, None, :]
    nest = _Nest(spec, weight, x, out, residual, target, tile)
    channels, filled, lanes = out.image[1], out.blocks * out.block, nest.lanes

    def fill(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros((filled - channels, *values.shape[1:]), values.dtype)])

    by_vector = fill(weight[:, 0]).reshape(filled // lanes, lanes, *weight.shape[2:])
    arrays = {
        "weight": np.ascontiguousarray(by_vector.transpose(0, 2, 3, 1)).reshape(-1),
        "bias": fill(shifted_bias(spec, constants)),
    }
    if spec.weights in b.STORED_AS_BITS:
        arrays["weight"] = to_bits(arrays["weight"], spec.weights)
    if constants.multiplier is not None:
        arrays["multiplier"] = fill(constants.multiplier.astype(np.float32))
    llvm = "".join(dot.llvm for dot in (nest.rounding, nest.dot) if dot)
    return layer_kernel("depthwise_conv2d", arrays, x, out, residual, nest.emit, nest.note, llvm)


class _Nest:
    """Loops over images, channel blocks, vectors of a block, rows and tiles of a row.

    lanes: channels at a time. parts: vectors of the dot product that hold their sums. rounding: what rounds results to
    bfloat16 in one instruction, if there is one.
    """

    def __init__(
        self,
        spec: Conv2d,
        weight: np.ndarray,
        x: Storage,
        out: Storage,
        residual: Storage | None,
        target: Target,
        tile: Strip | None,
    ):
        window = (weight.shape[2], weight.shape[3])
        self.spec, self.window, self.x, self.out, self.residual = spec, window, x, out, residual
        self.dot = target.dot.for_weights(weight) if spec.x else None
        self.parts = parts_of(spec, target)
        self.lanes = target.lanes * self.parts
        self.chunks = _chunks(spec, window, target)
        fitting = (dot for dot in target.dots_of("bfloat16") if dot.narrow and dot.lanes == self.lanes)
        self.rounding = next(fitting, None) if out.dtype == "bfloat16" else None
        batch, channels, height, width = out.image
        self.columns = (tile or default_strip(spec, window, out, target)).columns
        steps = batch * channels * height * width * window[0] * len(self.chunks.taps) / self.lanes
        self.parallel = worth_threads(target.threads, steps)
        self.note = f"{self.dot.name if self.dot else 'fma'} {self.columns} pixels, {self.chunks.shared} a chunk"

    def emit(self, buffers: dict[str, b.Buffer]) -> None:
        self.buffers = buffers
        out, parts = self.out, self.out.block // self.lanes
        batch, _, height, width = out.image
        with b.loop(batch * out.blocks, self.parallel) as plane:
            n, block = plane // out.blocks, plane % out.blocks
            b.fill_border(buffers["y"], out, n, block)
            with b.loop(parts) as part:
                vector = block * parts + part
                weights = self._kept(self._weights(vector))
                bias = b.first_sum(buffers["bias"], vector * self.lanes, self.lanes, self.dot is not None)
                m = None
                if "multiplier" in buffers:
                    m = b.bind(b.load(buffers["multiplier"], vector * self.lanes, self.lanes))
                with b.loop(height) as row:
                    for start, size, count in b.tiles(width, self.columns):
                        with b.loop(count) as i:
                            self._tile(n, block, part, row, start + i * size, size, weights, bias, m)

    def _weights(self, vector: b.Index) -> list[list[Expr]]:
        """The operands of one channel vector, row by row: the parts for each chunk and each output pixel of it."""
        lanes, (height, width) = self.lanes, self.window
        operands = []
        for row in range(height):
            start = vector * (height * width * lanes) + row * width * lanes
            taps = [b.bind(b.load(self.buffers["weight"], start + i * lanes, lanes)) for i in range(width)]
            if not self.dot:
                taps = [b.bind(b.decoded(tap, self.spec.weights, lanes)) for tap in taps]
            for chosen in self.chunks.sources(width, self.spec.strides[1]):
                operands.append(self._gathered(taps, chosen) if self.dot else [taps[chosen[0]]])
        return operands

    def _kept(self, weights: list[list[Expr]]) -> Weights:
        """The operands again for every tile: on the stack, from where LLVM would take more than there are registers one
        by one, and after accumulators had to give way."""
        if self.dot is None or self.dot.opaque is None:
            return lambda: iter(weights)
        size = self.dot.lanes * self.chunks.group
        table = b.registers(len(weights) * self.parts * size, "int8")
        for i, operand in enumerate(part for parts in weights for part in parts):
            b.store(table, i * size, operand, size)

        def again() -> Iterator[list[Expr]]:
            start = b.bind(self.dot.opaque(0))
            for i in range(0, len(weights) * self.parts, self.parts):
                yield [b.bind(b.load(table, start + (i + part) * size, size)) for part in range(self.parts)]

        return again

    def _gathered(self, taps: list[Expr], chosen: list[int | None]) -> list[Expr]:
        """[channel][element of the group] out of [tap][channel], part by part."""
        zero = b.splat(0, "int8", self.lanes)
        vectors = [
            *taps,
            zero,
            *[zero] * (self.chunks.group - len(taps)),
        ]  # a shuffle may not be longer than its sources
        index = [(len(taps) if t is None else t) * self.lanes + lane for lane in range(self.lanes) for t in chosen]
        size = self.dot.lanes * self.chunks.group
        return [b.bind(self.dot.widen(_shuffle(vectors, index[i * size : (i + 1) * size]))) for i in range(self.parts)]

    def _tile(self, n, block, part, row, column, size: int, weights: Weights, bias: Expr, m: Expr | None) -> None:
        lanes, spec = self.lanes, self.spec
        top, left, _, _ = spec.padding
        corner = self.x.pixel(n, block, row * spec.strides[0] - top, column * spec.strides[1] - left) + part * lanes
        acc = self._sum(corner, size, weights, bias)
        for p in range(size):
            value = b.scaled(b.load(acc, p * lanes, lanes), m, lanes)
            other = None
            if self.residual is not None:
                at = self.residual.pixel(n, block, row, column + p) + part * lanes
                other = b.real(b.load(self.buffers["residual"], at, lanes), self.residual.dtype, lanes)
            result = b.finish(value, spec.epilogue, lanes, other, self.dot)
            result = b.stored(result, self.out.dtype, lanes, self.rounding.narrow if self.rounding else None)
            b.store(self.buffers["y"], self.out.pixel(n, block, row, column + p) + part * lanes, result, lanes)

    def _sum(self, corner: b.Index, columns: int, weights: Weights, bias: Expr) -> b.Buffer:
        """Accumulators of ``columns`` output pixels whose first window starts at ``corner``."""
        lanes, chunks, spec = self.lanes, self.chunks, self.spec
        acc = b.registers(columns * lanes, "int32" if self.dot else "float32")
        for p in range(columns):
            b.store(acc, p * lanes, bias, lanes)
        operands, width = weights(), lanes // self.parts
        waiting: dict[int, tuple[Expr, Expr]] = {}  # for another product of the same accumulator
        for row in range(self.window[0]):
            seen: dict[int, Expr] = {}
            for first in chunks.taps:
                shared = [next(operands) for _ in range(chunks.shared)]
                for p in range(0, columns, chunks.shared):
                    pixel = p * spec.strides[1] + first * spec.dilation[1]
                    start = corner + row * spec.dilation[0] * self.x.row
                    if self.parts > 1:
                        codes = self._interleaved(start, pixel, seen)
                    else:
                        codes = [self._codes(start + pixel * self.x.block)]
                    for slot, part_weights in zip(range(p, columns), shared, strict=False):
                        for part, (operand, weight) in enumerate(zip(codes, part_weights, strict=True)):
                            place = slot * lanes + part * width
                            if self.dot and self.dot.accumulate_two:
                                if place not in waiting:
                                    waiting[place] = operand, weight
                                    continue
                                pairs = zip(waiting.pop(place), (operand, weight), strict=True)
                                new = self.dot.accumulate_two(b.load(acc, place, width), *pairs)
                            else:
                                new = self._added(b.load(acc, place, width), operand, weight)
                            b.store(acc, place, new, width)
        for place, (operand, weight) in waiting.items():
            b.store(acc, place, self._added(b.load(acc, place, width), operand, weight), width)
        return acc

    def _added(self, old: Expr, operand: Expr, weight: Expr) -> Expr:
        return self.dot.accumulate(old, operand, weight) if self.dot else old + operand * weight

    def _interleaved(self, start: b.Index, pixel: int, seen: dict[int, Expr]) -> list[Expr]:
        """``group`` pixels of a whole block, [channel][pixel], part by part: a tree of interleavings of two.

        seen: pairs of pixels of this row that are interleaved already, by the first; neighbouring chunks share them.
        """
        lanes, group, step = self.lanes, self.chunks.group, self.spec.dilation[1]

        def pair(first: int) -> Expr:
            if first not in seen:
                both = [
                    b.bind(b.load(self.buffers["x"], start + p * self.x.block, lanes)) for p in (first, first + step)
                ]
                seen[first] = b.bind(_shuffle(both, [p * lanes + c for c in range(lanes) for p in range(2)]))
            return seen[first]

        codes = pair(pixel)
        if group == 4:
            halves = [tirx.reinterpret(f"int16x{lanes}", half) for half in (codes, pair(pixel + 2 * step))]
            words = _shuffle(halves, [p * lanes + c for c in range(lanes) for p in range(2)])
            codes = b.bind(tirx.reinterpret(f"int8x{4 * lanes}", words))
        size = lanes * group // self.parts
        return [
            b.bind(self.dot.each(_shuffle([codes], [i * size + j for j in range(size)]))) for i in range(self.parts)
        ]

    def _codes(self, at: b.Index) -> Expr:
        """``group`` pixels from ``at`` on, [channel][pixel]."""
        lanes, group, dilation = self.lanes, self.chunks.group, self.spec.dilation[1]
        if not self.dot:
            return b.bind(b.real(b.load(self.buffers["x"], at, lanes), self.x.dtype, lanes))
        if lanes == self.x.block and dilation == 1:
            pixels = [b.bind(b.load(self.buffers["x"], at, lanes * group))]
        else:
            step = dilation * self.x.block
            pixels = [b.bind(b.load(self.buffers["x"], at + p * step, lanes)) for p in range(group)]
        return b.bind(self.dot.each(_shuffle(pixels, [p * lanes + c for c in range(lanes) for p in range(group)])))


def _shuffle(vectors: list[Expr], index: list[int]) -> Expr:
    return tirx.Shuffle(vectors, [tirx.const(i, "int32") for i in index])


def legal_columns(width: int, target: Target) -> list[int]:
    """Every number of output pixels of a tile, for rows of ``width`` output pixels: as many accumulators."""
    return list(range(1, min(width, target.vector_registers) + 1))


def parts_of(spec: Conv2d, target: Target) -> int:
    """Vectors of sums that are computed together: those of a block, where a vector of its codes is no longer."""
    return BLOCK // target.lanes if spec.x and target.vector_bits // 8 <= BLOCK else 1


def _chunks(spec: Conv2d, window: tuple[int, ...], target: Target) -> Chunks:
    return Chunks.of(window[1], spec.strides[1], spec.dilation[1], target.dot.group if spec.x else 1)


def default_strip(spec: Conv2d, window: tuple[int, ...], out: Storage, target: Target) -> Strip:
    """The row in equal parts of at most ``_COLUMNS``, whole chunks each. window: (KH, KW)."""
    width, shared = out.image[3], _chunks(spec, window, target).shared
    parts = -(-width // (_COLUMNS // parts_of(spec, target)))
    size = -(-width // parts)
    return Strip(min(-(-size // shared) * shared, width))


def strip_cycles(strip: Strip, spec: Conv2d, window: tuple[int, ...], out: Storage, target: Target) -> float:
    """Predicted cycles of all of ``out``, with everything in the first-level cache; window: (KH, KW)."""
    chunks, (batch, _, height, width) = _chunks(spec, window, target), out.image
    cycles = 0.0
    for _, size, count in b.tiles(width, strip.columns):
        loads = -(-size // chunks.shared) * len(chunks.taps) * window[0]  # and a shuffle each
        products = size * len(chunks.taps) * window[0]
        cycles += count * (max(products / 2, loads) + _EPILOGUE * size + _TILE)
    return cycles * batch * out.blocks * (out.block // target.lanes) * height
