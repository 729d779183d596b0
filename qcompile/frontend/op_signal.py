"""Fourier transforms as products with constant matrices: DFT along one axis, STFT of frames.

A complex number is a last axis of extent 2. ``X[k] = sum over n of x[n] exp(-2 pi i k n / N)``.
"""

from __future__ import annotations

from math import prod

import numpy as np
from tvm import relax

from qcompile.frontend.context import NodeContext, Result


def dft(ctx: NodeContext) -> Result:
    """x (..., n, ..., 1 or 2) -> (..., bins, ..., 2); the axis is an attribute before opset 20, an input since."""
    shape, rank = ctx.shape(), len(ctx.shape())
    if ctx.opset < 20:
        axis = int(ctx.get("axis", 1))
    else:
        given = ctx.optional_constant(2, "axis")
        axis = -2 if given is None else int(given.item())
    axis %= rank
    length = ctx.optional_constant(1, "length")
    points = shape[axis] if length is None else int(length.item())
    inverse, onesided = bool(ctx.get("inverse", 0)), bool(ctx.get("onesided", 0))
    if inverse and onesided:
        raise ctx.unsupported("the inverse of a one-sided transform")
    used, parts = min(shape[axis], points), shape[-1]
    matrix = _matrix(points, used, parts, onesided, inverse).reshape(used * parts, -1).astype(ctx.dtype())
    order = [i for i in range(rank - 1) if i != axis] + [axis, rank - 1]
    x = ctx.tensor(0)
    if used < shape[axis]:
        x = relax.op.strided_slice(x, [axis], [0], [used])
    x = x if order == list(range(rank)) else relax.op.permute_dims(x, order)
    kept = [shape[i] for i in order[:-2]]
    y = relax.op.matmul(relax.op.reshape(x, (prod(kept), used * parts)), ctx.as_expr(matrix))
    y = relax.op.reshape(y, (*kept, matrix.shape[1] // 2, 2))
    return y if order == list(range(rank)) else relax.op.permute_dims(y, np.argsort(order).tolist())


def stft(ctx: NodeContext) -> Result:
    """x (batch, samples[, 1]) -> (batch, frames, bins, 2): a convolution with the windowed transform."""
    shape = ctx.shape()
    if len(shape) == 3 and shape[2] != 1:
        raise ctx.unsupported("a complex signal")
    step = int(ctx.constant(1, "frame step").item())
    window, length = ctx.optional_constant(2, "window"), ctx.optional_constant(3, "frame length")
    if window is None and length is None:
        raise ctx.fail("it has neither a window nor a frame length", "mend or re-export the model")
    points = window.shape[0] if length is None else int(length.item())
    matrix = _matrix(points, points, 1, bool(ctx.get("onesided", 1)), False)[:, 0]
    if window is not None:
        matrix = matrix * window.astype(np.float64)[:, None, None]
    bins = matrix.shape[1]
    kernel = np.ascontiguousarray(matrix.reshape(points, bins * 2).T)[:, None].astype(ctx.dtype())
    signal = relax.op.reshape(ctx.tensor(0), (shape[0], 1, shape[1]))
    y = relax.op.nn.conv1d(signal, ctx.as_expr(kernel), strides=step)
    frames = (shape[1] - points) // step + 1
    return relax.op.reshape(relax.op.permute_dims(y, [0, 2, 1]), (shape[0], frames, bins, 2))


def _matrix(points: int, used: int, parts: int, onesided: bool, inverse: bool) -> np.ndarray:
    """(used, parts, bins, 2): what the real and imaginary part of each element give to those of each bin."""
    bins = points // 2 + 1 if onesided else points
    angle = 2 * np.pi / points * (np.arange(used)[:, None] * np.arange(bins) % points)
    angle = angle if inverse else -angle
    real, imaginary = np.cos(angle), np.sin(angle)
    of_parts = [np.stack([real, imaginary], -1), np.stack([-imaginary, real], -1)][:parts]
    return np.stack(of_parts, 1) / (points if inverse else 1)


CONVERTERS = {"DFT": dft, "STFT": stft}
