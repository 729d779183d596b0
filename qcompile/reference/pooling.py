"""Layers that reduce or interpolate images: average pooling, mean, bilinear resize."""

from __future__ import annotations

from math import prod

import numpy as np

from qcompile.ops import AvgPool2d, Mean, ResizeLinear
from qcompile.reference.arithmetic import centered, exact_int32, finish, out_scale, ratio, scaled
from qcompile.reference.windows import Window, sum_windows

RESIZE_BITS = 11  # fraction bits of an interpolation weight on one axis


def avg_pool2d(spec: AvgPool2d, x: np.ndarray, multiplier: np.ndarray | None = None) -> np.ndarray:
    """x (N, C, H, W) or (N, C, W); multiplier: only of codes.

    A window without a valid element (``ceil_mode`` can make one) sums to 0; its float mean is 0.
    """
    images = x if x.ndim == 4 else x[:, :, None]
    window = Window(spec.window, spec.strides, spec.padding, spec.dilation, spec.ceil_mode)
    if spec.count_include_pad:
        count: np.int64 | np.ndarray = np.int64(prod(spec.window))
    else:
        count = sum_windows(np.ones((1, 1, *images.shape[2:]), np.int64), window)
    if spec.x is None:
        v = (sum_windows(images.astype(np.float64), window) / np.maximum(count, 1)).astype(np.float32)
    else:
        total = sum_windows(centered(images, spec.x).astype(np.int64), window)
        v = scaled(exact_int32(total), multiplier[count])
    result = finish(v, spec.epilogue)
    return result if x.ndim == 4 else result[:, :, 0]


def mean(spec: Mean, x: np.ndarray) -> np.ndarray:
    count = prod(x.shape[axis] for axis in spec.axes)
    if spec.x is None:
        v = x.mean(axis=spec.axes, keepdims=spec.keepdims, dtype=np.float64).astype(np.float32)
    else:
        total = centered(x, spec.x).sum(axis=spec.axes, keepdims=spec.keepdims, dtype=np.int64)
        v = scaled(exact_int32(total), ratio(spec.x.scale, count * out_scale(spec.epilogue)))
    return finish(v, spec.epilogue)


def resize_linear(
    spec: ResizeLinear,
    x: np.ndarray,
    index_h: np.ndarray,
    weight_h: np.ndarray,
    index_w: np.ndarray,
    weight_w: np.ndarray,
) -> np.ndarray:
    """x (N, C, H, W); index and weight (OH, 2), (OW, 2) int32."""
    image = centered(x, spec.x).astype(np.int64)
    above, below = (image[:, :, index_h[:, i], :] * weight_h[:, i].astype(np.int64)[:, None] for i in range(2))
    rows = above + below
    left, right = (rows[:, :, :, index_w[:, j]] * weight_w[:, j].astype(np.int64) for j in range(2))
    factor = ratio(spec.x.scale, 4**RESIZE_BITS * out_scale(spec.epilogue))
    return finish(scaled(exact_int32(left + right), factor), spec.epilogue)
