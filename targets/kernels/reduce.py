"""Mean over any axes; global average pooling above all."""

from __future__ import annotations

from math import prod

from tvm import tirx
from tvm.ir import Expr

from qcompile.ops import Mean
from qcompile.reference.arithmetic import out_scale, ratio
from qcompile.targets.kernels.builder import (
    Buffer,
    Index,
    cast,
    finish,
    kernel,
    load,
    loop,
    registers,
    rounded,
    splat,
    store,
)
from qcompile.targets.kernels.sweep import Operand, borders, each_element, parallel, pixel_lanes, store_pixel
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def mean(spec: Mean, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.Mean``: buffers x, y."""
    axes = tuple(sorted(axis % len(x.shape) for axis in spec.axes))
    count = prod(x.shape[axis] for axis in axes)
    dtype = "int32" if spec.x else "float32"

    def result(total: Expr, lanes: int) -> Expr:
        if spec.x is None:
            value = tirx.Div(total, splat(count, "float32", lanes))
        else:
            steps = total - splat(spec.x.zero_point * count, "int32", lanes) if spec.x.zero_point else total
            factor = splat(float(ratio(spec.x.scale, count * out_scale(spec.epilogue))), "float32", lanes)
            value = rounded(cast("float32", steps, lanes) * factor, lanes)
        return finish(value, spec.epilogue, lanes)

    def body(source: Buffer, y: Buffer) -> None:
        operands = Operand(source, x), Operand(y, out)
        fork = parallel(target, x)
        spatial = tuple(range(2, len(x.shape)))
        if x.blocked and axes == spatial and out.numel >= out.shape[0] * out.shape[1] and out.block in (0, x.block):
            _over_pixels(*operands, dtype, result, fork)
        else:
            _over_elements(*operands, axes, spec.keepdims, dtype, result, fork)
        borders(operands[1])

    return kernel("mean", [("x", x.dtype, x.numel), ("y", out.dtype, out.numel)], body)


def _over_pixels(x: Operand, out: Operand, dtype: str, result, fork: bool) -> None:
    """Sums over the image of each channel block, its channels in one vector; ``out``: one pixel, or a plain (N, C)."""
    s, block = x.storage, x.storage.block
    images, _, height, width = s.image
    for first, valid, count in pixel_lanes(s):
        with loop(images * count, fork) as i:
            n, group = i // count, first + i % count
            total = registers(block, dtype)
            store(total, 0, splat(0, dtype, block), block)
            with loop(height) as h, loop(width) as w:
                part = load(x.buffer, s.pixel(n, group, h, w), block)
                part = part if dtype == "float32" else cast(dtype, part, block)
                store(total, 0, load(total, 0, block) + part, block)
            value = result(load(total, 0, valid), valid)
            if out.storage.blocked:
                store_pixel(out, out.storage.pixel(n, group, 0, 0), value, valid)
            else:
                store(out.buffer, n * s.shape[1] + group * block, value, valid)


def _over_elements(
    x: Operand, out: Operand, axes: tuple[int, ...], keepdims: bool, dtype: str, result, fork: bool
) -> None:
    """Any axes and storage, element by element."""
    shape = x.storage.shape

    def value(index: tuple[Index, ...]) -> Expr:
        kept = [i for axis, i in enumerate(index) if not (keepdims and axis in axes)]
        total = registers(1, dtype)
        store(total, 0, splat(0, dtype, 1), 1)

        def nest(axis: int, source: tuple[Index, ...], left: list[Index]) -> None:
            if axis == len(shape):
                part = x.buffer[x.storage.at(*source)]
                store(total, 0, total[0] + (part if dtype == "float32" else cast(dtype, part, 1)), 1)
            elif axis in axes:
                with loop(shape[axis]) as i:
                    nest(axis + 1, (*source, i), left)
            else:
                nest(axis + 1, (*source, left[0]), left[1:])

        nest(0, (), kept)
        return result(total[0], 1)

    each_element(out, value, fork)
