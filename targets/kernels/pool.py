"""Max and average pooling, one axis after the other.

For each output row, the window's rows are combined first, for the whole width, in long vectors, into a row of
temporaries with the padding's columns on both sides; then its columns are. So a KH x KW window costs KH + KW steps, and
no step needs bounds checks: rows outside the image are replaced, columns outside are neutral elements of the temporary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from qcompile.ops import AvgPool2d
from qcompile.targets.kernels.builder import (
    Buffer,
    Index,
    bind,
    cast,
    finish,
    kernel,
    load,
    loop,
    real,
    rounded,
    splat,
    store,
    stored,
)
from qcompile.targets.kernels.sweep import Operand, borders, broadcast, chunks, each_element, parallel, rows
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a pooling window: extents of input, output and window; where tap k of output o lies."""

    inputs: int
    outputs: int
    window: int
    stride: int
    before: int
    dilation: int

    def position(self, o: Index, tap: Index) -> Index:
        return o * self.stride + tap * self.dilation - self.before

    @property
    def padded(self) -> int:
        """Input elements from the first that any window touches to the last, padding included."""
        return (self.outputs - 1) * self.stride + (self.window - 1) * self.dilation + 1

    def covers(self, tap: int) -> bool:
        """Whether a tap lies inside the input for every output."""
        return self.position(0, tap) >= 0 and self.position(self.outputs - 1, tap) < self.inputs

    def inside(self, o: Index, tap: int) -> Expr:
        at = self.position(o, tap)
        return tirx.And(tirx.IntImm("int32", 0) <= at, at < tirx.IntImm("int32", self.inputs))

    def count(self, o: Index) -> Index:
        """Taps of output o inside the input."""
        if all(self.covers(tap) for tap in range(self.window)):
            return self.window
        return sum((cast("int32", self.inside(o, tap), 1) for tap in range(self.window)), tirx.IntImm("int32", 0))


def axes(x: Storage, out: Storage, window, strides, padding, dilation) -> tuple[Axis, Axis]:
    """(H, W); a sequence has an H axis of one element."""
    (_, _, h, w), (_, _, oh, ow) = image(x), image(out)
    top, left, _, _ = padding
    return (
        Axis(h, oh, window[0], strides[0], top, dilation[0]),
        Axis(w, ow, window[1], strides[1], left, dilation[1]),
    )


def image(s: Storage) -> tuple[int, int, int, int]:
    n, c, *height, width = s.shape
    return n, c, height[0] if height else 1, width


def max_pool2d(
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    x: Storage,
    out: Storage,
    target: Target,
) -> tirx.PrimFunc:
    """Largest element of each window, codes or floats: buffers x, y.

    Padding holds no elements; ``out.shape`` tells whether ceil_mode is meant.
    """
    dtype = "float32" if x.is_float else x.dtype
    pool = _Pool(*axes(x, out, window, strides, padding, dilation), _least(dtype), dtype, tirx.Max)

    def prepare(value: Expr, lanes: int) -> Expr:
        return real(value, x.dtype, lanes)

    def result(value: Expr, _h: Index, _w: Index, lanes: int) -> Expr:
        return stored(value, out.dtype, lanes)

    def body(source: Buffer, y: Buffer) -> None:
        pool.emit(Operand(source, x), Operand(y, out), target, prepare, result)

    return kernel("max_pool2d", [("x", x.bits, x.numel), ("y", out.bits, out.numel)], body)


def avg_pool2d(spec: AvgPool2d, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.AvgPool2d``: buffers x, [multiplier], y."""
    height, width = axes(x, out, spec.window, spec.strides, spec.padding, spec.dilation)
    dtype = _sum_dtype(x.dtype, height.window * width.window)
    pool = _Pool(height, width, 0, dtype, lambda a, b: a + b)

    def body(source: Buffer, *rest: Buffer) -> None:
        *multiplier, y = rest

        def widened(value: Expr, lanes: int) -> Expr:
            return value if spec.x is None else cast(dtype, value, lanes)

        def mean(total: Expr, h: Index, w: Index, lanes: int) -> Expr:
            valid = tirx.convert(height.count(h) * width.count(w))
            count = tirx.const(height.window * width.window, "int32") if spec.count_include_pad else valid
            if multiplier:
                steps = cast("int32", total, lanes) - broadcast(valid * spec.x.zero_point, lanes)
                value = rounded(cast("float32", steps, lanes) * broadcast(multiplier[0][count], lanes), lanes)
            else:
                divisor = cast("float32", tirx.Max(count, tirx.IntImm("int32", 1)), 1)
                value = tirx.Div(total, broadcast(divisor, lanes))
            return finish(value, spec.epilogue, lanes)

        pool.emit(Operand(source, x), Operand(y, out), target, widened, mean)

    taps = height.window * width.window
    multiplier = [("multiplier", "float32", taps + 1)] if spec.x else []
    return kernel("avg_pool2d", [("x", x.dtype, x.numel), *multiplier, ("y", out.dtype, out.numel)], body)


def _sum_dtype(dtype: str, taps: int) -> str:
    """A type that holds the sum of so many codes: 16 bits are twice as fast."""
    if dtype == "float32" or taps > 256:
        return "float32" if dtype == "float32" else "int32"
    return "uint16" if dtype == "uint8" else "int16"


def _least(dtype: str) -> float:
    return {"uint8": 0, "int8": -128, "float32": float("-inf")}[dtype]


@dataclass(frozen=True, slots=True)
class _Pool:
    """height, width: the axes. neutral, dtype, combine: of the reduction."""

    height: Axis
    width: Axis
    neutral: float
    dtype: str
    combine: Callable[[Expr, Expr], Expr]

    def emit(self, x: Operand, out: Operand, target: Target, prepare, result) -> None:
        """prepare(elements, lanes) -> what is combined; result(combined, oh, ow, lanes) -> elements of the output."""
        fork = parallel(target, x.storage, out.storage)
        if x.storage.blocked and x.storage.block == out.storage.block:
            self._by_rows(x, out, fork, prepare, result)
        else:
            self._by_elements(x, out, fork, prepare, result)
        borders(out)

    def _by_rows(self, x: Operand, out: Operand, fork: bool, prepare, result) -> None:
        block = out.storage.block
        first, width = self.width.before, self.width
        with rows(out.storage, fork) as (n, group, oh):
            row = T.alloc_buffer((width.padded * block,), self.dtype)
            self._fill(row, 0, min(first, width.padded) * block)
            used = max(0, min(width.inputs, width.padded - first))
            self._fill(row, (first + used) * block, (width.padded - first - used) * block)
            if used:
                self._combine_rows(x, row, first * block, used * block, n, group, oh, prepare)
            # Neighbouring results read neighbouring temporaries only where the stride is 1.
            step = 64 // block * block if width.stride == 1 and self.dtype in ("uint8", "int8") else block
            for start, lanes, count in chunks(width.outputs * block, step):
                with loop(count) as i:
                    offset = start + i * lanes
                    value = None
                    for tap in range(width.window):
                        at = offset * width.stride if lanes == block else offset
                        part = load(row, at + tap * width.dilation * block, lanes)
                        value = part if value is None else self.combine(value, part)
                    ow = i if lanes == block else 0
                    store(out.buffer, out.storage.pixel(n, group, oh, 0) + offset, result(value, oh, ow, lanes), lanes)

    def _fill(self, row: Buffer, start: int, length: int) -> None:
        for first, lanes, count in chunks(length, 64) if length > 0 else ():
            with loop(count) as i:
                store(row, start + first + i * lanes, splat(self.neutral, self.dtype, lanes), lanes)

    def _combine_rows(self, x: Operand, row: Buffer, to: int, length: int, n, group, oh, prepare) -> None:
        height = self.height
        taps = []
        for tap in range(height.window):
            h = bind(tirx.convert(height.position(oh, tap)))
            if height.covers(tap):
                taps.append((x.storage.pixel(n, group, h, 0), None))
            else:
                nearest = tirx.Max(tirx.Min(h, tirx.IntImm("int32", height.inputs - 1)), tirx.IntImm("int32", 0))
                taps.append((x.storage.pixel(n, group, nearest, 0), bind(height.inside(oh, tap))))
        for start, lanes, count in chunks(length, 64 if x.item_bytes == 1 else 16):
            with loop(count) as i:
                value = None
                for base, inside in taps:
                    part = prepare(load(x.buffer, base + start + i * lanes, lanes), lanes)
                    if inside is not None:
                        part = tirx.Select(broadcast(inside, lanes), part, splat(self.neutral, self.dtype, lanes))
                    value = part if value is None else self.combine(value, part)
                store(row, to + start + i * lanes, value, lanes)

    def _by_elements(self, x: Operand, out: Operand, fork: bool, prepare, result) -> None:
        """Any storage, element by element."""

        def value(index: tuple[Index, ...]) -> Expr:
            n, c, *spatial = index
            oh, ow = spatial if len(spatial) == 2 else (0, spatial[0])
            total = splat(self.neutral, self.dtype, 1)
            for i in range(self.height.window):
                for j in range(self.width.window):
                    h, w = self.height.position(oh, i), self.width.position(ow, j)
                    at = x.storage.at(n, c, h, w) if len(x.storage.shape) == 4 else x.storage.at(n, c, w)
                    part = prepare(x.buffer[at], 1)
                    checks = [
                        a.inside(o, t) for a, o, t in ((self.height, oh, i), (self.width, ow, j)) if not a.covers(t)
                    ]
                    for inside in checks:
                        part = tirx.if_then_else(inside, part, splat(self.neutral, self.dtype, 1))
                    total = self.combine(total, part)
            return result(total, oh, ow, 1)

        each_element(out, value, fork)
