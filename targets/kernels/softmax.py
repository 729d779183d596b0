"""Softmax of codes, by a table of exponentials."""

from __future__ import annotations

from math import prod

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from qcompile.ops import Softmax
from qcompile.reference.arithmetic import out_scale, ratio
from qcompile.targets.kernels.builder import (
    Buffer,
    Index,
    bind,
    cast,
    finish,
    kernel,
    load,
    loop,
    registers,
    rounded,
    store,
)
from qcompile.targets.kernels.sweep import Operand, borders, broadcast, chunks, clear_padding, parallel
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def softmax(spec: Softmax, x: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.Softmax``: buffers x, exp_table, y."""
    axis = spec.axis % len(x.shape)
    extent = x.shape[axis]
    others = [n for a, n in enumerate(x.shape) if a != axis]
    inverse = tirx.const(float(ratio(1, out_scale(spec.epilogue))), "float32")
    # Along the last axis of a plain tensor, elements are neighbours and the result is computed in vectors.
    vectors = not x.blocked and not out.blocked and axis == len(x.shape) - 1

    def result(e: Expr, factor: Expr, lanes: int) -> Expr:
        value = rounded(cast("float32", e, lanes) * broadcast(factor, lanes), lanes)
        return finish(value, spec.epilogue, lanes)

    def body(source: Buffer, table: Buffer, y: Buffer) -> None:
        clear_padding(Operand(y, out))
        with loop(prod(others), parallel(target, x, out)) as flat:
            index: list[Index] = []
            for n in reversed(others):
                index.insert(0, flat % n)
                flat = flat // n

            def at(s: Storage, i: Index) -> Index:
                return s.at(*index[:axis], i, *index[axis:])

            peak = registers(1, "int32")
            total = registers(1, "int32")
            powers = T.alloc_buffer((extent,), "int32")
            store(peak, 0, tirx.const(spec.x.qmin, "int32"), 1)
            store(total, 0, tirx.const(0, "int32"), 1)
            with loop(extent) as i:
                store(peak, 0, tirx.Max(peak[0], cast("int32", source[at(x, i)], 1)), 1)
            with loop(extent) as i:
                e = bind(table[peak[0] - cast("int32", source[at(x, i)], 1)])
                store(powers, i, e, 1)
                store(total, 0, total[0] + e, 1)
            factor = bind(tirx.Div(inverse, cast("float32", total[0], 1)))
            for start, lanes, count in chunks(extent, 16 if vectors else 1):
                with loop(count) as i:
                    k = start + i * lanes
                    store(y, at(out, k), result(load(powers, k, lanes), factor, lanes), lanes)
        borders(Operand(y, out))

    named = [("x", x.dtype, x.numel), ("exp_table", "int32", 256), ("y", out.dtype, out.numel)]
    return kernel("softmax", named, body)
