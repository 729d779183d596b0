"""Independent definitions for the tests: one result element at a time, Python's exact integers, one rounding a step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from qcompile.ops import Affine, AvgPool2d, Conv2d, ConvTranspose2d, Epilogue

f32 = np.float32


def code(real: float, q: Affine) -> int:
    """Code of a real value."""
    with np.errstate(over="ignore"):
        return _to_code(f32(real) / f32(q.scale), q, q.qmin, q.qmax)


def _to_code(v: np.float32, q: Affine, low: int, high: int) -> int:
    if math.isnan(v):
        return min(max(q.zero_point, low), high)
    if math.isinf(v):
        return high if v > 0 else low
    return min(max(round(float(v)) + q.zero_point, low), high)  # Python's round: half to even, to an exact integer


def finish(v: np.float32, epilogue: Epilogue, residual: np.generic | None) -> float:
    out = epilogue.out
    with np.errstate(over="ignore", invalid="ignore"):
        if epilogue.residual:
            factor = f32(epilogue.residual.scale / (out.scale if out else 1))
            v = f32(v + f32(f32(int(residual) - epilogue.residual.zero_point) * factor))
        elif epilogue.residual_is_float:
            v = f32(v + residual)
    low, high = epilogue.clip or (-math.inf, math.inf)
    if out is None:
        return min(max(v, f32(low)), f32(high))
    return _to_code(v, out, code(low, out), code(high, out))


def scaled(total: int, factor: np.float32) -> np.float32:
    with np.errstate(over="ignore"):
        return f32(f32(np.int32(total)) * f32(factor))


def conv2d_sum(spec: Conv2d, x: np.ndarray, weight: np.ndarray, at: tuple[int, ...]) -> int:
    """Sum of products at one element of the result, images of rank 4 or 3."""
    n, o, *pixel = at
    h, w = pixel if len(pixel) == 2 else (0, *pixel)
    x4, w4 = _images(x), _images(weight)
    per_group = w4.shape[1]
    first = o // (w4.shape[0] // spec.groups) * per_group
    total = 0
    for c in range(per_group):
        for i in range(w4.shape[2]):
            for j in range(w4.shape[3]):
                row = h * spec.strides[0] + i * spec.dilation[0] - spec.padding[0]
                column = w * spec.strides[1] + j * spec.dilation[1] - spec.padding[1]
                if 0 <= row < x4.shape[2] and 0 <= column < x4.shape[3]:
                    total += (int(x4[n, first + c, row, column]) - spec.x.zero_point) * int(w4[o, c, i, j])
    return total


def conv_transpose2d_sum(spec: ConvTranspose2d, x: np.ndarray, weight: np.ndarray, at: tuple[int, ...]) -> int:
    """Gathers: the input pixels that reach this result through some tap of the filter."""
    n, o, h, w = at
    per_group = weight.shape[1]
    group, inner = divmod(o, per_group)
    channels = weight.shape[0] // spec.groups
    total = 0
    for c in range(group * channels, (group + 1) * channels):
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                row, row_rest = divmod(h + spec.padding[0] - i * spec.dilation[0], spec.strides[0])
                column, column_rest = divmod(w + spec.padding[1] - j * spec.dilation[1], spec.strides[1])
                inside = 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
                if inside and row_rest == column_rest == 0:
                    total += (int(x[n, c, row, column]) - spec.x.zero_point) * int(weight[c, inner, i, j])
    return total


def avg_pool2d_sum(spec: AvgPool2d, x: np.ndarray, at: tuple[int, ...]) -> tuple[int, int]:
    """(sum, number of valid elements) of one window."""
    n, c, *pixel = at
    h, w = pixel if len(pixel) == 2 else (0, *pixel)
    x4 = _images(x)
    total = count = 0
    for i in range(spec.window[0]):
        for j in range(spec.window[1]):
            row = h * spec.strides[0] + i * spec.dilation[0] - spec.padding[0]
            column = w * spec.strides[1] + j * spec.dilation[1] - spec.padding[1]
            if 0 <= row < x4.shape[2] and 0 <= column < x4.shape[3]:
                total += int(x4[n, c, row, column]) - spec.x.zero_point
                count += 1
    return total, count


def some_indices(shape: tuple[int, ...], count: int = 12) -> Iterator[tuple[int, ...]]:
    """The corners first and last, and others spread over the result: checking every element would take minutes."""
    size = math.prod(shape)
    for flat in dict.fromkeys([0, size - 1, *np.random.default_rng(size).integers(0, size, count)]):
        yield tuple(int(i) for i in np.unravel_index(flat, shape))


def _images(tensor: np.ndarray) -> np.ndarray:
    return tensor if tensor.ndim == 4 else tensor[:, :, None]
