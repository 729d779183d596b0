"""Convolutions and pooling: padding always explicit, bias always an ``add`` of a constant of shape (1, O, 1, 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from tvm import relax

from qcompile.frontend.context import NodeContext, Result
from qcompile.frontend.op_volume import convolve_volume

CONV = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}
CONV_TRANSPOSE = {1: relax.op.nn.conv1d_transpose, 2: relax.op.nn.conv2d_transpose, 3: relax.op.nn.conv3d_transpose}
LAYOUT = {1: "W", 2: "HW", 3: "DHW"}


@dataclass(frozen=True, slots=True)
class Window:
    """The sliding window of a node; one number a spatial axis. ``before``/``after``: padding."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def padding(self) -> list[int]:
        return [*self.before, *self.after]


def _window(ctx: NodeContext, kernel: Sequence[int], ceil_mode: bool = False) -> Window:
    """The window, with ``auto_pad`` resolved and ``ceil_mode`` turned into padding behind the tensor."""
    spatial, rank = ctx.shape()[2:], len(kernel)
    if len(spatial) != rank:
        raise ctx.fail(f"its window has {rank} axes, its input {len(spatial)}", "mend or re-export the model")
    strides = tuple(ctx.get("strides") or [1] * rank)
    dilations = tuple(ctx.get("dilations") or [1] * rank)
    pads = list(ctx.get("pads") or [0] * (2 * rank))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    auto = ctx.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max((ceil(n / s) - 1) * s + r - n, 0) for n, s, r in zip(spatial, strides, reach, strict=True)]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = less + more if auto == "SAME_UPPER" else more + less
    elif auto == "VALID":
        pads = [0] * (2 * rank)
    before, after = pads[:rank], pads[rank:]
    for i, (n, s, r) in enumerate(zip(spatial, strides, reach, strict=True)):
        room = n + before[i] + after[i] - r
        if room < 0:
            raise ctx.fail(f"its window of {r} is larger than its padded input of {room + r}", "give a larger input")
        if ceil_mode:
            steps = ceil(room / s)
            steps -= steps * s >= n + before[i]  # a window may not start in the padding behind
            after[i] = max(after[i], steps * s + r - n - before[i])
    return Window(tuple(kernel), strides, dilations, tuple(before), tuple(after))


def conv(ctx: NodeContext, out_dtype: str | None = None) -> Result:
    weight = ctx.shape(1)
    rank = len(weight) - 2
    if rank not in CONV:
        raise ctx.unsupported(f"a convolution over {rank} axes")
    window = _window(ctx, weight[2:])
    strides, padding, dilations, groups = window.strides, window.padding, window.dilations, ctx.get("group", 1)
    if rank == 3 and isinstance(ctx.inputs[1], np.ndarray) and out_dtype is None:

        def conv2d(
            x: relax.Expr, kernel: np.ndarray, s: Sequence[int], p: Sequence[int], d: Sequence[int]
        ) -> relax.Expr:
            y = relax.op.nn.conv2d(x, ctx.as_expr(kernel), strides=s, padding=p, dilation=d, groups=groups)
            return _add_bias(ctx, y, 2)

        return convolve_volume(ctx, ctx.inputs[1], strides, padding, dilations, conv2d)
    y = CONV[rank](
        ctx.tensor(0),
        ctx.tensor(1),
        strides=strides,
        padding=padding,
        dilation=dilations,
        groups=groups,
        data_layout="NC" + LAYOUT[rank],
        kernel_layout="OI" + LAYOUT[rank],
        out_dtype=out_dtype,
    )
    return _add_bias(ctx, y, rank)


def conv_transpose(ctx: NodeContext) -> Result:
    weight = ctx.inputs[1]
    rank = len(ctx.shape(1)) - 2
    if rank not in CONV_TRANSPOSE:
        raise ctx.unsupported(f"a transposed convolution over {rank} axes")
    kernel = list(ctx.shape(1)[2:])
    dilations = ctx.get("dilations") or [1] * rank
    if any(d != 1 for d in dilations):
        weight = _dilate(ctx, weight, dilations)
        kernel = list(weight.shape[2:])
    strides = ctx.get("strides") or [1] * rank
    extra = list(ctx.get("output_padding") or [0] * rank)
    pads = _transpose_pads(ctx, kernel, strides, extra)
    y = CONV_TRANSPOSE[rank](
        ctx.tensor(0),
        ctx.as_expr(weight),
        strides=tuple(strides),
        padding=pads,
        output_padding=tuple(extra),
        groups=ctx.get("group", 1),
        data_layout="NC" + LAYOUT[rank],
        kernel_layout="IO" + LAYOUT[rank],
    )
    return _add_bias(ctx, y, rank)


def _dilate(ctx: NodeContext, weight: object, dilations: Sequence[int]) -> np.ndarray:
    """The weight with zeros between its taps: TVM's transposed convolutions have no dilation."""
    if not isinstance(weight, np.ndarray):
        raise ctx.unsupported("a dilated transposed convolution with computed weights")
    shape = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    wide = np.zeros((*weight.shape[:2], *shape), weight.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight
    return wide


def _transpose_pads(ctx: NodeContext, kernel: Sequence[int], strides: Sequence[int], extra: list[int]) -> list[int]:
    """Padding of a transposed convolution; an output larger than padding explains goes into ``extra``."""
    rank = len(kernel)
    auto, pads = ctx.get("auto_pad", "NOTSET"), list(ctx.get("pads") or [0] * (2 * rank))
    target = ctx.get("output_shape")
    if target is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        target = [n * s for n, s in zip(ctx.shape()[2:], strides, strict=True)]
    if target is not None:
        for i, size in enumerate(target[-rank:]):
            total = strides[i] * (ctx.shape()[2 + i] - 1) + extra[i] + kernel[i] - size
            extra[i] += max(-total, 0)
            total = max(total, 0)
            less, more = total // 2, total - total // 2
            pads[i], pads[rank + i] = (less, more) if auto == "SAME_UPPER" else (more, less)
    elif auto == "VALID":
        pads = [0] * (2 * rank)
    return pads


def _add_bias(ctx: NodeContext, y: relax.Expr, rank: int) -> relax.Expr:
    if not ctx.has(2):
        return y
    bias, shape = ctx.inputs[2], (1, -1, *[1] * rank)
    if isinstance(bias, np.ndarray):
        return relax.op.add(y, ctx.as_expr(bias.reshape(shape)))
    return relax.op.add(y, relax.op.reshape(bias, (1, ctx.shape(2)[0], *[1] * rank)))


def max_pool(ctx: NodeContext) -> Result:
    if len(ctx.wanted) > 1 and ctx.wanted[1]:
        raise ctx.unsupported("the output of indices")
    window = _window(ctx, ctx.get("kernel_shape"), bool(ctx.get("ceil_mode", 0)))
    return _pool(ctx, ctx.tensor(0), window, "max_pool")


def average_pool(ctx: NodeContext) -> Result:
    kernel, include = ctx.get("kernel_shape"), bool(ctx.get("count_include_pad", 0))
    declared = _window(ctx, kernel)
    window = _window(ctx, kernel, bool(ctx.get("ceil_mode", 0)))
    x = ctx.tensor(0)
    if include and window.after != declared.after:
        # Declared padding counts as zeros, what ceil_mode adds behind it does not: make the zeros real.
        flat = [0, 0, 0, 0, *(p for pair in zip(declared.before, declared.after, strict=True) for p in pair)]
        x = ctx.emit.emit(relax.op.nn.pad(x, flat))
        beyond = tuple(a - b for a, b in zip(window.after, declared.after, strict=True))
        none = tuple(0 for _ in beyond)
        window, include = Window(window.kernel, window.strides, window.dilations, none, beyond), False
    return _pool(ctx, x, window, "avg_pool", count_include_pad=include)


def _pool(ctx: NodeContext, x: relax.Expr, window: Window, kind: str, **options: bool) -> relax.Expr:
    op: Callable | None = getattr(relax.op.nn, f"{kind}{len(window.kernel)}d", None)
    if op is None:
        raise ctx.unsupported(f"pooling over {len(window.kernel)} axes")
    return op(x, window.kernel, window.strides, window.padding, window.dilations, ceil_mode=False, **options)


CONVERTERS = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
}
