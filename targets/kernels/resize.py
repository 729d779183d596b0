"""Bilinear resize."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from qcompile.ops import ResizeLinear
from qcompile.reference.arithmetic import out_scale, ratio
from qcompile.targets.kernels.builder import Buffer, bind, cast, finish, kernel, load, loop, rounded, splat, store
from qcompile.targets.kernels.sweep import Operand, borders, broadcast, each_element, parallel, rows
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target

_UNIT = 2048  # sum of the weights on one axis


def resize_linear(spec: ResizeLinear, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.ResizeLinear``: buffers x, index_h, weight_h, index_w, weight_w, y.

    Weights sum to one unit on each axis, so the zero point is subtracted once, from the sum.
    """
    factor = float(ratio(spec.x.scale, _UNIT * _UNIT * out_scale(spec.epilogue)))
    _, _, height, width = out.shape

    def result(total: Expr, lanes: int) -> Expr:
        if spec.x.zero_point:
            total = total - splat(_UNIT * _UNIT * spec.x.zero_point, "int32", lanes)
        value = rounded(cast("float32", total, lanes) * splat(factor, "float32", lanes), lanes)
        return finish(value, spec.epilogue, lanes)

    def body(source: Buffer, index_h: Buffer, weight_h: Buffer, index_w: Buffer, weight_w: Buffer, y: Buffer) -> None:
        operand = Operand(y, out)
        fork = parallel(target, x, out)

        def blend(read, h, w, lanes: int) -> Expr:
            """read(h, w): the codes of an input pixel."""
            top, bottom = (
                sum(
                    (
                        cast("int32", read(index_h[2 * h + i], index_w[2 * w + j]), lanes)
                        * broadcast(weight_w[2 * w + j], lanes)
                        for j in range(2)
                    ),
                    splat(0, "int32", lanes),
                )
                for i in range(2)
            )
            return top * broadcast(weight_h[2 * h], lanes) + bottom * broadcast(weight_h[2 * h + 1], lanes)

        if x.blocked and x.block == out.block:
            with rows(out, fork) as (n, block, h), loop(width) as w:
                total = blend(lambda a, b: load(source, x.pixel(n, block, a, b), x.block), h, w, x.block)
                store(y, out.pixel(n, block, h, w), result(bind(total), x.block), x.block)
        else:

            def value(index) -> Expr:
                n, c, h, w = index
                return result(blend(lambda a, b: source[x.at(n, c, a, b)], h, w, 1), 1)

            each_element(operand, value, fork)
        borders(operand)

    tables = [("index_h", 2 * height), ("weight_h", 2 * height), ("index_w", 2 * width), ("weight_w", 2 * width)]
    named = [("x", x.dtype, x.numel), *((name, "int32", size) for name, size in tables), ("y", out.dtype, out.numel)]
    return kernel("resize_linear", named, body)
