"""Scales of int4 weights: a float32 for each output channel, an integer for each group (see ``ops.Dense``)."""

from __future__ import annotations

import numpy as np

from qcompile.calibrate.scales import BIAS_CODES, MIN_SCALE, symmetric_weight_scales
from qcompile.passes.group_weights import QMAX, QMIN, SCALE_MAX

_CLIPS = np.linspace(1.04, 0.54, 26)  # ranges that are tried, relative to the largest weight of a group


def group_scales(weight: np.ndarray, group: int, bias: np.ndarray, input_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The scales whose int4 codes have the least squared error among some ranges for each group.

    weight: (N, K) float32, K a multiple of ``group``. bias: (N,) float32; with ``input_scale`` it bounds the channel's
    scale from below, as in ``symmetric_weight_scales``. Returns scale (N,) float32, group_scale (N, K / group) uint8.

    The channel's scale s gives its group of the largest weights ``SCALE_MAX``; then each group has the integer k with
    the least error of those next to ``clip * max|w| / (7 s)``, for clips from 1.04 down to 0.54; the first of equals.

    Raises
    ------
    QCompileError: for NaN or infinity.
    """
    symmetric_weight_scales(weight, bias, input_scale)  # refuses what is not finite
    outputs, inputs = weight.shape
    parts = weight.astype(np.float64).reshape(outputs, inputs // group, group)
    largest = np.abs(parts).max(axis=2)
    scale = largest.max(axis=1) / (QMAX * SCALE_MAX)
    scale = np.maximum(scale, np.abs(bias.astype(np.float64)) / (input_scale * BIAS_CODES))
    scale = np.where(scale == 0, 1.0, np.maximum(scale, MIN_SCALE)).astype(np.float32)
    wide = scale.astype(np.float64)[:, None]
    best, best_error = np.ones(largest.shape), np.full(largest.shape, np.inf)
    for clip in _CLIPS:
        k = np.clip(np.rint(clip * largest / (QMAX * wide)), 1, SCALE_MAX)
        step = (k * wide)[..., None]
        error = ((np.clip(np.rint(parts / step), QMIN, QMAX) * step - parts) ** 2).sum(axis=2)
        better = error < best_error
        best, best_error = np.where(better, k, best), np.where(better, error, best_error)
    return scale, best.astype(np.uint8)
