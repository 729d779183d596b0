"""Layers with weights: convolution, transposed convolution, dense.

Sums are taken in float64, where a matrix product runs in BLAS (numpy's integer one does not): products of codes are
below 2^16, so sums of up to 2^37 of them are exact. Float layers are summed in float64 too and rounded once: a kernel
may sum in any order and is compared within a tolerance.
"""

from __future__ import annotations

import numpy as np

from qcompile.formats import added_as
from qcompile.ops import Conv2d, ConvTranspose2d, Dense
from qcompile.reference.arithmetic import centered, exact_int32, finish, scaled
from qcompile.reference.narrow import rounded


def conv2d(spec: Conv2d, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """x (N, C, H, W) or (N, C, W); weight (O, C/groups, KH, KW) or without KH.

    rest: multiplier if the weights are integers, group_scale (O, KH * KW * C/groups / group) if spec.group, residual if
    any.
    """
    images, filters = _image(_numbers(spec, x)), _image(weight)
    top, left, bottom, right = spec.padding
    images = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, c, height, width = images.shape
    o, per_group, kh, kw = filters.shape
    oh = (height - spec.dilation[0] * (kh - 1) - 1) // spec.strides[0] + 1
    ow = (width - spec.dilation[1] * (kw - 1) - 1) // spec.strides[1] + 1

    images = images.reshape(n, spec.groups, per_group, height, width)
    factors, rest = _factors(spec, filters.transpose(0, 2, 3, 1).reshape(o, -1), rest)
    filters = factors.reshape(o, kh, kw, per_group).transpose(0, 3, 1, 2)
    filters = filters.reshape(spec.groups, o // spec.groups, per_group, kh, kw)
    total = np.zeros((n, spec.groups, o // spec.groups, oh * ow))
    for i in range(kh):
        for j in range(kw):
            rows = _every(i * spec.dilation[0], spec.strides[0], oh)
            columns = _every(j * spec.dilation[1], spec.strides[1], ow)
            seen = images[..., rows, columns].reshape(n, spec.groups, per_group, oh * ow)
            total += filters[..., i, j] @ seen
    result = _layer(spec, total.reshape(n, o, oh, ow), bias, rest, channel=1)
    return result if x.ndim == 4 else result[:, :, 0]


def conv_transpose2d(
    spec: ConvTranspose2d, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *rest: np.ndarray
) -> np.ndarray:
    """x (N, C, H, W) or (N, C, W); weight (C, O/groups, KH, KW) or without KH; rest: multiplier, residual if any."""
    images, filters = _image(_numbers(spec, x)), _image(weight)
    n, c, height, width = images.shape
    _, per_group, kh, kw = filters.shape
    top, left, bottom, right = spec.padding
    # Every input pixel adds its filter to the uncropped result, which padding crops and output_padding extends.
    full_h = (height - 1) * spec.strides[0] + spec.dilation[0] * (kh - 1) + 1 + spec.output_padding[0]
    full_w = (width - 1) * spec.strides[1] + spec.dilation[1] * (kw - 1) + 1 + spec.output_padding[1]

    images = images.reshape(n, spec.groups, c // spec.groups, height * width)
    filters = filters.astype(np.float64).reshape(spec.groups, c // spec.groups, per_group, kh, kw)
    total = np.zeros((n, spec.groups, per_group, full_h, full_w))
    for i in range(kh):
        for j in range(kw):
            rows = _every(i * spec.dilation[0], spec.strides[0], height)
            columns = _every(j * spec.dilation[1], spec.strides[1], width)
            spread = filters[..., i, j].swapaxes(1, 2) @ images
            total[..., rows, columns] += spread.reshape(n, spec.groups, per_group, height, width)
    total = total.reshape(n, spec.groups * per_group, full_h, full_w)[
        :, :, top : full_h - bottom, left : full_w - right
    ]
    result = _layer(spec, total, bias, rest, channel=1)
    return result if x.ndim == 4 else result[:, :, 0]


def dense(spec: Dense, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """x (..., K); weight (N, K); rest: multiplier, group_scale (N, K / group) if spec.group, residual if any."""
    factors, rest = _factors(spec, weight, rest)
    total = _numbers(spec, x) @ factors.T
    return _layer(spec, total, bias, rest, channel=total.ndim - 1)


def _factors(
    spec: Conv2d | Dense, weight: np.ndarray, rest: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Weights (O, K) in float64, times the scales of their groups; ``rest`` without those."""
    if not spec.group:
        return weight.astype(np.float64), rest
    multiplier, group_scale, *residual = rest
    return weight.astype(np.float64) * np.repeat(group_scale, spec.group, axis=1), (multiplier, *residual)


def _layer(
    spec: Conv2d | ConvTranspose2d | Dense,
    total: np.ndarray,
    bias: np.ndarray,
    rest: tuple[np.ndarray, ...],
    channel: int,
) -> np.ndarray:
    """Bias, multiplier and epilogue of the sums ``total``, whose output channels lie on axis ``channel``."""
    along = [1] * total.ndim
    along[channel] = -1
    if spec.scaled:
        multiplier, rest = rest[0].reshape(along), rest[1:]
    bias = bias.astype(np.float64).reshape(along)
    if spec.x is not None:
        v = scaled(exact_int32(total + bias), multiplier)
    else:
        v = ((total * multiplier.astype(np.float64) if spec.scaled else total) + bias).astype(np.float32)
    residual = rest[0].reshape(total.shape) if rest else None
    if residual is not None and spec.epilogue.residual_is_float and spec.x is None:
        residual = rounded(residual, added_as(spec.activations))
    return finish(v, spec.epilogue, residual)


def _numbers(spec: Conv2d | ConvTranspose2d | Dense, x: np.ndarray) -> np.ndarray:
    """The values that products are made of, float64: codes less their zero point, floats as the layer reads them."""
    if spec.x is None:
        return rounded(x, spec.activations).astype(np.float64)
    return centered(x, spec.x).astype(np.float64)


def _image(tensor: np.ndarray) -> np.ndarray:
    """A sequence as an image of height 1."""
    return tensor if tensor.ndim == 4 else tensor[:, :, None]


def _every(start: int, step: int, count: int) -> slice:
    return slice(start, start + (count - 1) * step + 1, step)
