"""Which elements an operator that moves them takes: its arguments and attributes as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax
from tvm.tirx import IntImm

from qcompile.passes.base import shape_of
from qcompile.reference.movement import nearest_index

_PAD_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
Indices = list[np.ndarray | None]


def slice_start(call: relax.Call) -> tuple[list[int], list[int]] | None:
    """The first index and the stride on each axis of a strided_slice; None where they are not constants."""
    x, numbers = call.args[0], [_literal(arg) for arg in call.args[1:]]
    if any(n is None for n in numbers):
        return None
    axes, first, _, *steps = numbers
    begin, strides = [0] * len(shape_of(x)), [1] * len(shape_of(x))
    for axis, start, step in zip(axes, first, steps[0] if steps else [1] * len(axes), strict=True):
        extent = shape_of(x)[axis]
        last = extent - 1 if step < 0 else extent
        begin[axis] = min(max(start + extent if start < 0 else start, 0), last)
        strides[axis] = step
    return begin, strides


def part_start(split: relax.Call, part: int) -> list[int]:
    """The first index on each axis of a result of a split."""
    x, axis, parts = split.args[0], int(split.attrs.axis), split.attrs.indices_or_sections
    begin = [0] * len(shape_of(x))
    if isinstance(parts, IntImm):
        begin[axis] = part * -(-shape_of(x)[axis] // int(parts))
    else:
        begin[axis] = [0, *(int(i) for i in parts)][part]
    return begin


def pad_indices(pad: relax.Call) -> Indices | None:
    """Of a pad that repeats elements, where those of each axis come from; None for other modes."""
    mode = str(pad.attrs.pad_mode)
    if mode not in _PAD_MODES:
        return None
    widths = [int(w) for w in pad.attrs.pad_width]
    pairs = zip(widths[::2], widths[1::2], strict=True)
    return [
        np.pad(np.arange(n), pair, mode=_PAD_MODES[mode]) if any(pair) else None
        for n, pair in zip(shape_of(pad.args[0]), pairs, strict=True)
    ]


def resize_indices(resize: relax.Call, var: relax.Var) -> Indices:
    """Of a nearest resize, where the elements of each axis come from."""
    coordinates, rounding = str(resize.attrs.coordinate_transformation_mode), str(resize.attrs.rounding_method)
    spatial = [
        nearest_index(a, b, coordinates, rounding)
        for a, b in zip(shape_of(resize.args[0])[2:], shape_of(var)[2:], strict=True)
    ]
    return [None, None, *spatial]


def _literal(expr: relax.Expr) -> list[int] | None:
    if not isinstance(expr, relax.Tuple) or not all(isinstance(f, IntImm) for f in expr.fields):
        return None
    return [int(f) for f in expr.fields]
