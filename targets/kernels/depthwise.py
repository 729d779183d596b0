"""Depthwise convolution: every lane of a vector is a channel with a window of its own.

On codes, a dot-product instruction sums ``group`` taps of a window row at once: ``group`` neighbouring pixels of a channel
block are loaded as they lie, [pixel][channel], and one shuffle makes them [channel][pixel]. A shuffled chunk serves as many
neighbouring output pixels as fit their windows into it, each with the weights moved on by its stride::

    chunk   x0 x1 x2 x3        3 taps, stride 1
    y0      w0 w1 w2  0
    y1       0 w0 w1 w2

In float32, one FMA a tap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from qcompile.ops import Conv2d
from qcompile.reference.arithmetic import code_bounds
from qcompile.targets.instructions import Dot
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.conv import Constants, Kernel, shifted_bias
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target

_PARALLEL_MACS = 200_000
_COLUMNS = 16  # output pixels of a tile: as many accumulators, the rest of the registers hold weights


@dataclass(frozen=True, slots=True)
class Chunks:
    """How a window row is cut for a dot product.

    taps: first tap of each chunk. shared: neighbouring output pixels that one chunk serves (windows of up to ``group`` taps).
    """

    group: int
    taps: tuple[int, ...]
    shared: int

    @staticmethod
    def of(width: int, stride: int, dilation: int, group: int) -> Chunks:
        if width <= group and dilation == 1:
            return Chunks(group, (0,), (group - width) // stride + 1)
        return Chunks(group, tuple(range(0, width, group)), 1)

    def weights(self, window: np.ndarray, stride: int) -> np.ndarray:
        """(C, KH, KW) -> (KH, chunk, output pixel of the chunk, C, group)."""
        channels, rows, width = window.shape
        packed = np.zeros((rows, len(self.taps), self.shared, channels, self.group), window.dtype)
        for c, first in enumerate(self.taps):
            taps = window[:, :, first : first + self.group]
            for j in range(self.shared):
                packed[:, c, j, :, j * stride : j * stride + taps.shape[2]] = taps.transpose(1, 0, 2)
        return packed


def is_depthwise(spec: Conv2d, weight_shape: tuple[int, ...]) -> bool:
    """One output channel for each input channel."""
    return spec.groups > 1 and spec.groups == weight_shape[0] and weight_shape[1] == 1


def depthwise_conv2d(
    spec: Conv2d, constants: Constants, x: Storage, out: Storage, residual: Storage | None, target: Target, columns: int | None = None
) -> Kernel:
    """x, out, residual: blocked, x's border at least the padding. weight: (C, 1, KH, KW) or (C, 1, KW)."""
    weight = constants.weight if constants.weight.ndim == 4 else constants.weight[:, :, None, :]
    kh, kw = weight.shape[2:]
    dot = target.dot if spec.x else None
    lanes = target.lanes
    chunks = Chunks.of(kw, spec.strides[1], spec.dilation[1], dot.group if dot else 1)
    batch, channels, height, width = out.image
    filled = out.blocks * out.block  # channels with the padding of the last block
    per_lane = np.zeros((filled, kh, kw), weight.dtype)
    per_lane[:channels] = weight[:, 0]
    packed = chunks.weights(per_lane, spec.strides[1])
    packed = packed.reshape(*packed.shape[:3], filled // lanes, lanes, chunks.group).transpose(3, 0, 1, 2, 4, 5)

    def fill(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros(filled - channels, values.dtype)])

    arrays = [np.ascontiguousarray(packed).reshape(-1), fill(shifted_bias(spec, constants))]
    buffers = [("x", x.dtype, x.numel), ("weight", str(packed.dtype), packed.size), ("bias", str(arrays[1].dtype), filled)]
    if spec.x:
        arrays.append(fill(constants.multiplier.astype(np.float32)))
        buffers.append(("multiplier", "float32", filled))
    if residual is not None:
        buffers.append(("residual", residual.dtype, residual.numel))
    buffers.append(("y", out.dtype, out.numel))
    columns = columns or _balanced(width, chunks.shared)
    bounds = code_bounds(spec.epilogue.out, spec.epilogue.clip) if spec.epilogue.out else None
    parallel = target.threads > 1 and batch * channels * height * width * kh * kw > _PARALLEL_MACS
    vectors = filled // lanes
    vector_weights = kh * len(chunks.taps) * chunks.shared * lanes * chunks.group

    def body(*args: b.Buffer) -> None:
        named = dict(zip([buffer[0] for buffer in buffers], args, strict=True))
        y = named["y"]
        with b.loop(batch * out.blocks, parallel) as plane:
            n, block = plane // out.blocks, plane % out.blocks
            b.fill_border(y, out, n, block)
            with b.loop(out.block // lanes) as part:
                vector = block * (out.block // lanes) + part
                rows = _Rows(named, chunks, dot, target, vector * vector_weights, kh)
                bias = b.bind(b.load(named["bias"], vector * lanes, lanes))
                m = b.bind(b.load(named["multiplier"], vector * lanes, lanes)) if dot else None
                with b.loop(height) as row:
                    for start, size, count in b.tiles(width, columns):
                        with b.loop(count) as i:
                            column = start + i * size
                            corner = x.pixel(n, block, row * spec.strides[0] - spec.padding[0], column * spec.strides[1] - spec.padding[1])
                            acc = rows.sum(spec, x, corner + part * lanes, bias, size)
                            for p in range(size):
                                value = b.load(acc, p * lanes, lanes)
                                if m is not None:
                                    value = b.rounded(b.cast("float32", value, lanes) * m, lanes)
                                other = None
                                if residual is not None:
                                    at = residual.pixel(n, block, row, column + p) + part * lanes
                                    other = b.load(named["residual"], at, lanes)
                                result = b.finish(value, spec.epilogue, bounds, lanes, other)
                                b.store(y, out.pixel(n, block, row, column + p) + part * lanes, result, lanes)

    note = f"{dot.name if dot else 'fma'} {columns} pixels, {chunks.shared} a chunk"
    assert vectors * lanes == filled
    return Kernel(b.kernel("depthwise_conv2d", buffers, body), tuple(arrays), note)


def _balanced(width: int, shared: int) -> int:
    """Columns of a tile: the row in equal parts of at most ``_COLUMNS``, whole chunks each."""
    parts = -(-width // _COLUMNS)
    size = -(-width // parts)
    return min(-(-size // shared) * shared, width)


class _Rows:
    """The window rows of one channel vector."""

    def __init__(self, buffers: dict[str, b.Buffer], chunks: Chunks, dot: Dot | None, target: Target, weights: b.Index, height: int):
        self.x, self.chunks, self.dot, self.lanes = buffers["x"], chunks, dot, target.lanes
        size = self.lanes * chunks.group
        count = height * len(chunks.taps) * chunks.shared
        widen = dot.widen if dot else lambda w: w
        self.weights = [b.bind(widen(b.load(buffers["weight"], weights + i * size, size))) for i in range(count)]

    def sum(self, spec: Conv2d, x: Storage, corner: b.Index, bias: Expr, columns: int) -> b.Buffer:
        """Accumulators of ``columns`` output pixels whose first window starts at ``corner``."""
        lanes, chunks = self.lanes, self.chunks
        acc = b.registers(columns * lanes, "int32" if self.dot else "float32")
        for p in range(columns):
            b.store(acc, p * lanes, bias, lanes)
        index = 0
        for row in range(len(self.weights) // (len(chunks.taps) * chunks.shared)):
            for first in chunks.taps:
                for p in range(0, columns, chunks.shared):
                    at = corner + row * spec.dilation[0] * x.row + (p * spec.strides[1] + first * spec.dilation[1]) * x.block
                    operand = self._operand(x, at, spec.dilation[1])
                    for j in range(min(chunks.shared, columns - p)):
                        slot, weight = (p + j) * lanes, self.weights[index + j]
                        old = b.load(acc, slot, lanes)
                        new = self.dot.accumulate(old, operand, weight) if self.dot else old + operand * weight
                        b.store(acc, slot, new, lanes)
                index += chunks.shared
        return acc

    def _operand(self, x: Storage, at: b.Index, dilation: int) -> Expr:
        """``group`` pixels from ``at`` on, [channel][pixel]."""
        lanes, group = self.lanes, self.chunks.group
        if not self.dot:
            return b.bind(b.load(self.x, at, lanes))
        if lanes == x.block and dilation == 1:
            whole = b.bind(b.load(self.x, at, lanes * group))
            codes = tirx.Shuffle([whole], [tirx.const(p * lanes + c, "int32") for c in range(lanes) for p in range(group)])
        else:
            pixels = [b.bind(b.load(self.x, at + p * dilation * x.block, lanes)) for p in range(group)]
            codes = tirx.Shuffle(pixels, [tirx.const(p * lanes + c, "int32") for c in range(lanes) for p in range(group)])
        return b.bind(self.dot.each(codes))
