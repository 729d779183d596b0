"""From ranges to scales and zero points (see ``qcompile.ops.Affine``)."""

from __future__ import annotations

import math

import numpy as np

from qcompile.errors import QCompileError
from qcompile.ops import Affine

MIN_SCALE = float(np.finfo(np.float32).tiny)  # 2**-126: the smallest scale whose reciprocal is finite and not denormal
BIAS_CODES = 2**23  # a bias takes at most 24 bits, which leaves room for the sum of products in int32


def affine(low: float, high: float, dtype: str = "uint8") -> Affine:
    """The quantization of a tensor with values in ``[low, high]``, widened to include 0, which gets a code of its own.

    scale = f32((high - low) / 255); zero_point = qmin + round_half_even(-low / scale), in [qmin, qmax].
    A tensor that is always 0 gets scale 1; the scale is never below ``MIN_SCALE``, nor infinite for the widest range.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"not a finite range: [{low}, {high}]")
    if dtype not in ("uint8", "int8"):
        raise ValueError(f"activations are uint8 or int8, not {dtype}")
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    qmin = Affine(1.0, 0, dtype).qmin
    if low == high:
        return Affine(1.0, qmin, dtype)
    scale = max(float(np.float32((high - low) / 255)), MIN_SCALE)
    return Affine(scale, qmin + min(max(round(-low / scale), 0), 255), dtype)


def symmetric_weight_scales(
    weight: np.ndarray, bias: np.ndarray | None = None, input_scale: float | None = None, axis: int | None = 0
) -> np.ndarray:
    """Scales of int8 weights, one for each output channel: ``s_w[c] = max(max|w_c| / 127, |b_c| / (s_x 2^23))``, 1 if
    both are 0.

    The second term keeps the bias, an integer of scale ``s_x s_w``, from overflowing where weights are small.

    weight: float32, channels along ``axis``; None for one scale for all. bias: (channels,) float32, with
    ``input_scale`` s_x. Returns (channels,) float32, all finite and at least ``MIN_SCALE``; (1,) for axis None.
    """
    weight = np.asarray(weight, np.float64)
    channels = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    scales = np.abs(channels).max(axis=1, initial=0.0) / 127
    if bias is not None:
        if input_scale is None:
            raise ValueError("a bias needs the scale of the input")
        by_bias = np.abs(np.asarray(bias, np.float64).reshape(-1)) / (input_scale * BIAS_CODES)
        scales = np.maximum(scales, by_bias.max(initial=0.0) if axis is None else by_bias)
    if not np.isfinite(scales).all():
        raise QCompileError(
            "NaN or infinity among the weights or the bias", remedy="export the model again from a sound checkpoint"
        )
    limit = float(np.finfo(np.float32).max)
    return np.where(scales == 0, 1.0, np.clip(scales, MIN_SCALE, limit)).astype(np.float32)
