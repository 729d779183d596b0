"""Rows of a table of codes, scaled."""

from __future__ import annotations

from math import prod

from tvm import tirx
from tvm.ir import Expr

from qcompile.targets.kernels.builder import Buffer, Index, bind, cast, kernel, load, loop, rounded, store
from qcompile.targets.kernels.sweep import chunks, parallel
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def gather(table: tuple[int, int], addend_rows: int, indices: Storage, out: Storage, target: Target) -> tirx.PrimFunc:
    """``ops.Gather``: buffers indices, table, scale, [addend, addend_scale], y; all plain.

    table: its shape (V, D). addend_rows: R, 0 for no addend.
    """
    rows, width = table
    count = prod(indices.shape)

    def body(index: Buffer, codes: Buffer, scale: Buffer, *rest: Buffer) -> None:
        *addend, y = rest
        with loop(count, parallel(target, out)) as i:
            row = bind(tirx.floormod(index[i], tirx.const(rows, indices.dtype)))
            factor = bind(scale[row])
            if addend:
                position = i % addend_rows
                added = bind(addend[1][position])
            for start, lanes, repeat in chunks(width, 2 * target.lanes):
                with loop(repeat) as chunk:
                    at = start + chunk * lanes
                    value = _real(codes, row * width + at, factor, lanes)
                    if addend:
                        value = value + _real(addend[0], position * width + at, added, lanes)
                    store(y, i * width + at, value, lanes)

    buffers = [("indices", indices.dtype, count), ("table", "int8", rows * width), ("scale", "float32", rows)]
    if addend_rows:
        buffers += [("addend", "int8", addend_rows * width), ("addend_scale", "float32", addend_rows)]
    return kernel("gather", [*buffers, ("y", "float32", out.numel)], body)


def _real(codes: Buffer, at: Index, scale: Expr, lanes: int) -> Expr:
    factor = tirx.Broadcast(scale, lanes) if lanes > 1 else scale
    return rounded(cast("float32", load(codes, at, lanes), lanes) * factor, lanes)
