"""Random layers on a tensor of a given shape: the spec, the constant arguments, the shape of the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from hypothesis import strategies as st

from qcompile import ops
from qcompile.ops import Affine, Epilogue
from qcompile.reference import arithmetic, elementwise
from qcompile.reference.windows import Window
from tests.properties import values
from tests.properties.values import Draw

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """constants: the arguments between the activation and the residual. shape: of the result."""

    spec: ops.Spec
    constants: tuple[np.ndarray, ...]
    shape: Shape

    @property
    def dtype(self) -> str:
        """Element type of the result of a spec with an epilogue."""
        return self.spec.epilogue.out.dtype if self.spec.epilogue.out else "float32"


def conv2d(draw: Draw, shape: Shape, x: Affine | None, epilogue: Epilogue) -> Layer:
    """On (N, C, H, W) or (N, C, W)."""
    n, c = shape[:2]
    groups = draw(st.sampled_from([1, 1, c, *(g for g in (2, 3, 4) if c % g == 0)]))
    o = groups * draw(st.sampled_from((1, 2))) if groups > 1 else draw(st.sampled_from(values.CHANNELS))
    axes = [_window(draw, extent, max_padding=3) for extent in shape[2:]]
    kernel, strides, dilation, padding, extents = _two_dimensional(axes)
    taps = kernel if len(axes) == 2 else kernel[1:]
    spec = ops.Conv2d(strides, padding, dilation, groups, x, epilogue)
    constants = _parameters(draw, (o, c // groups, *taps), o, prod(kernel) * c // groups, x)
    return Layer(spec, constants, (n, o, *(extents if len(axes) == 2 else extents[1:])))


def conv_transpose2d(draw: Draw, shape: Shape, x: Affine | None, epilogue: Epilogue) -> Layer:
    """On (N, C, H, W)."""
    n, c, *spatial = shape
    groups = draw(st.sampled_from([1, 1, c]))
    per_group = draw(st.sampled_from((1, 3, 5)))
    axes = [_spread(draw, extent) for extent in spatial]
    kernel, strides, dilation, output_padding, before, after, extents = zip(*axes, strict=True)
    spec = ops.ConvTranspose2d(strides, (*before, *after), output_padding, dilation, groups, x, epilogue)
    o = groups * per_group
    constants = _parameters(draw, (c, per_group, *kernel), o, prod(kernel) * c // groups, x)
    return Layer(spec, constants, (n, o, *extents))


def dense(draw: Draw, shape: Shape, x: Affine | None, epilogue: Epilogue) -> Layer:
    """On (..., K)."""
    n = draw(st.sampled_from(values.CHANNELS))
    constants = _parameters(draw, (n, shape[-1]), n, shape[-1], x)
    return Layer(ops.Dense(x, epilogue), constants, (*shape[:-1], n))


def avg_pool2d(draw: Draw, shape: Shape, x: Affine | None, epilogue: Epilogue) -> Layer:
    """On (N, C, H, W) or (N, C, W)."""
    ceil_mode = draw(st.booleans())
    axes = [_window(draw, extent, max_padding=2, ceil_mode=ceil_mode) for extent in shape[2:]]
    window, strides, dilation, padding, extents = _two_dimensional(axes)
    spec = ops.AvgPool2d(window, strides, padding, dilation, ceil_mode, draw(st.booleans()), x, epilogue)
    constants = () if x is None else (arithmetic.pool_multipliers(x, prod(window), epilogue.out),)
    return Layer(spec, constants, (*shape[:2], *(extents if len(axes) == 2 else extents[1:])))


def mean(draw: Draw, shape: Shape, x: Affine | None, epilogue: Epilogue) -> Layer:
    axes = tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
    if len(shape) == 4 and draw(st.booleans()):
        axes = (2, 3)
    keepdims = draw(st.booleans())
    kept = tuple(1 if a in axes else e for a, e in enumerate(shape) if keepdims or a not in axes)
    return Layer(ops.Mean(axes, keepdims, x, epilogue), (), kept)


def resize_linear(draw: Draw, shape: Shape, x: Affine, epilogue: Epilogue) -> Layer:
    """On (N, C, H, W); any two neighbours for each result, not only the ones of a regular grid."""
    n, c, *spatial = shape
    tables: list[np.ndarray] = []
    extents = []
    for extent in spatial:
        out = draw(st.integers(1, 9))
        random = values.rng(draw)
        first = random.integers(0, extent, out)
        second = np.minimum(first + 1, extent - 1)
        weight = random.choice([0, 1, 512, 1024, 1365, 2048], out)
        tables += [np.stack([first, second], 1).astype(np.int32), np.stack([weight, 2048 - weight], 1).astype(np.int32)]
        extents.append(out)
    return Layer(ops.ResizeLinear(x, epilogue), tuple(tables), (n, c, *extents))


def softmax(draw: Draw, shape: Shape, x: Affine, epilogue: Epilogue) -> Layer:
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return Layer(ops.Softmax(axis, x, epilogue), (elementwise.exponentials(x),), shape)


def _parameters(draw: Draw, weight_shape: Shape, channels: int, terms: int, x: Affine | None) -> tuple[np.ndarray, ...]:
    """Weight, bias and, for codes, multiplier."""
    if x is None:
        return values.floats(draw, weight_shape), values.floats(draw, (channels,))
    weight = values.weights(draw, weight_shape)
    return weight, values.biases(draw, channels, terms), values.multipliers(draw, channels, terms)


def _window(draw: Draw, extent: int, max_padding: int, ceil_mode: bool = False) -> tuple[int, ...]:
    """(kernel, stride, dilation, padding before, after, output extent) that leaves at least one output."""
    before, after = draw(st.integers(0, max_padding)), draw(st.integers(0, max_padding))
    stride = draw(st.sampled_from((1, 1, 2, 3, 5)))
    dilation = draw(st.sampled_from((1, 1, 2, 3)))
    span = extent + before + after
    kernel = draw(st.integers(1, min(5, span)))
    dilation = dilation if dilation * (kernel - 1) < span else 1
    window = Window((kernel, 1), (stride, 1), (before, 0, after, 0), (dilation, 1), ceil_mode)
    outputs, _ = window.outputs(extent, 1)
    return kernel, stride, dilation, before, after, outputs


def _spread(draw: Draw, extent: int) -> tuple[int, ...]:
    """(kernel, stride, dilation, output padding, padding before, after, output extent) of a transposed convolution."""
    kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    extra = draw(st.integers(0, stride - 1))
    full = (extent - 1) * stride + dilation * (kernel - 1) + 1 + extra
    before = draw(st.integers(0, min(2, full - 1)))
    after = draw(st.integers(0, min(2, full - 1 - before)))
    return kernel, stride, dilation, extra, before, after, full - before - after


def _two_dimensional(axes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Kernel, strides, dilation, padding (top, left, bottom, right), extents; one axis becomes a row of height 1."""
    kernel, stride, dilation, before, after, outputs = zip(*((1, 1, 1, 0, 0, 1), *axes)[-2:], strict=True)
    return kernel, stride, dilation, (*before, *after), outputs
