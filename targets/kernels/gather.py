"""Rows of a table of codes, scaled; or of float16."""

from __future__ import annotations

from math import prod

import numpy as np
from tvm import tirx
from tvm.ir import Expr

from qcompile.targets.kernels.builder import Buffer, Index, bind, cast, kernel, load, loop, rounded, splat, store
from qcompile.targets.kernels.sweep import chunks, parallel
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target


def gather(
    table: tuple[int, ...],
    addend_rows: int,
    indices: Storage,
    out: Storage,
    target: Target,
    group: int = 0,
    dtype: str = "int8",
) -> tirx.PrimFunc:
    """``ops.Gather``: buffers indices, table, scale, [group_scale], [addend, addend_scale], y; all plain.

    table: its shape (V, D). addend_rows: R, 0 for no addend. group: of int4 codes, in the order of ``pack_rows``.
    dtype: of table and addend, int8 or float16.
    """
    rows, width = table
    count = prod(indices.shape)

    def body(index: Buffer, codes: Buffer, scale: Buffer, *rest: Buffer) -> None:
        *addend, y = rest
        steps = addend.pop(0) if group else None
        with loop(count, parallel(target, out)) as i:
            row = bind(tirx.floormod(index[i], tirx.const(rows, indices.dtype)))
            factor = bind(scale[row])
            if addend:
                position = i % addend_rows
                added = bind(addend[1][position])

            def finish(at: Index, value: Expr, lanes: int) -> None:
                if addend:
                    value = value + _real(load(addend[0], position * width + at, lanes), added, lanes)
                store(y, i * width + at, value, lanes)

            if not group:
                for start, lanes, repeat in chunks(width, 2 * target.lanes):
                    with loop(repeat) as chunk:
                        at = start + chunk * lanes
                        finish(at, _real(load(codes, row * width + at, lanes), factor, lanes), lanes)
                return
            half = group // 2
            with loop(width // group) as g:
                step = bind(cast("float32", steps[row * (width // group) + g], 1) * tirx.const(1 / 16, "float32"))
                for start, lanes, repeat in chunks(half, 2 * target.lanes):
                    with loop(repeat) as chunk:
                        at = start + chunk * lanes
                        packed = bind(load(codes, row * (width // 2) + g * half + at, lanes))
                        for number, wide in enumerate(_sixteenfold(packed, lanes)):
                            value = cast("float32", wide, lanes) * _spread(step, lanes)  # exact
                            value = rounded(value * _spread(factor, lanes), lanes)
                            finish(g * group + number * half + at, value, lanes)

    size = rows * width // (2 if group else 1)
    buffers = [("indices", indices.dtype, count), ("table", dtype, size), ("scale", "float32", rows)]
    if group:
        buffers.append(("group_scale", "uint8", rows * width // group))
    if addend_rows:
        buffers += [("addend", dtype, addend_rows * width), ("addend_scale", "float32", addend_rows)]
    return kernel("gather", [*buffers, ("y", "float32", out.numel)], body)


def pack_rows(table: np.ndarray, group: int) -> np.ndarray:
    """Int4 codes (V, D) as bytes of two: of each group, the first half in the low bits, the second in the high."""
    halves = table.reshape(-1, 2, group // 2).view(np.uint8)
    return ((halves[:, 0] & 0x0F) | (halves[:, 1] << 4)).view(np.int8).reshape(len(table), -1)


def _sixteenfold(packed: Expr, lanes: int) -> tuple[Expr, Expr]:
    """16 times the codes in the low, and in the high half of each byte, as int8."""
    return packed << splat(4, "int8", lanes), packed & splat(-16, "int8", lanes)


def _real(codes: Expr, scale: Expr, lanes: int) -> Expr:
    return rounded(cast("float32", codes, lanes) * _spread(scale, lanes), lanes)


def _spread(scale: Expr, lanes: int) -> Expr:
    return tirx.Broadcast(scale, lanes) if lanes > 1 else scale
