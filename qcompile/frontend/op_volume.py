"""Convolutions of volumes as convolutions of images: there are kernels, integer ones among them, for those."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import relax

from qcompile.frontend.context import NodeContext

Conv2d = Callable[[relax.Expr, np.ndarray, Sequence[int], Sequence[int], Sequence[int]], relax.Expr]


def convolve_volume(
    ctx: NodeContext,
    weight: np.ndarray,
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    conv2d: Conv2d,
) -> relax.Expr:
    """A convolution (bias included) of x (N, C, D, H, W) with weight (O, C / groups, d, h, w).

    A window that is one pixel wide is an image of D x (H * W). Else each slice of the result is a convolution of the d
    slices that it sees, side by side as channels:

        conv3d(x, w)   ->   conv2d(concat(x[:, :, 0:-2], x[:, :, 1:-1], x[:, :, 2:]), w as (O, d * C, h, w))

    conv2d: makes one, of x, weight, strides, padding (4 numbers) and dilation.
    """
    n, channels, depth, height, width = ctx.shape()
    outputs, _, taps, *window = weight.shape
    after = depth + padding[0] + padding[3]
    slices = (after - (taps - 1) * dilation[0] - 1) // strides[0] + 1
    if window == [1, 1] and not any((*padding[1:3], *padding[4:])) and tuple(strides[1:]) == (1, 1):
        flat = relax.op.reshape(ctx.tensor(0), (n, channels, depth, height * width))
        kernel, pads = weight.reshape(*weight.shape[:3], 1), (padding[0], 0, padding[3], 0)
        y = conv2d(flat, kernel, (strides[0], 1), pads, (dilation[0], 1))
        return relax.op.reshape(y, (n, outputs, slices, height, width))
    groups = channels // weight.shape[1]
    x = relax.op.permute_dims(ctx.tensor(0), [0, 2, 1, 3, 4])
    if padding[0] or padding[3]:
        x = relax.op.nn.pad(x, [0, 0, padding[0], padding[3], 0, 0, 0, 0, 0, 0])
    x = ctx.emit.emit(relax.op.reshape(x, (n, after, groups, channels // groups, height, width)))
    seen = [_every(ctx, x, tap * dilation[0], slices, strides[0]) for tap in range(taps)]
    x = relax.op.concat(seen, axis=3) if taps > 1 else seen[0]
    x = relax.op.reshape(x, (n * slices, taps * channels, height, width))
    kernel = weight.transpose(0, 2, 1, 3, 4).reshape(outputs, -1, *window)
    y = conv2d(x, np.ascontiguousarray(kernel), strides[1:], (*padding[1:3], *padding[4:]), dilation[1:])
    y = ctx.emit.emit(y)
    image = [int(extent) for extent in y.ty.shape.values][2:]
    return relax.op.permute_dims(relax.op.reshape(y, (n, slices, outputs, *image)), [0, 2, 1, 3, 4])


def _every(ctx: NodeContext, x: relax.Expr, first: int, count: int, step: int) -> relax.Expr:
    """``count`` slices of x (n, slices, ...), ``step`` apart."""
    if first == 0 and count == int(x.ty.shape.values[1]):
        return x
    end = first + (count - 1) * step + 1
    return ctx.emit.emit(relax.op.strided_slice(x, [1], [first], [end], [step], assume_inbound=True))
