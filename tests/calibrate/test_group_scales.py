"""Scales of int4 weights by groups."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.calibrate.group_scales import group_scales
from qcompile.errors import QCompileError
from qcompile.passes.group_weights import grouped_codes

NO_BIAS = np.zeros(6, np.float32)


def weights(kind="normal"):
    rng = np.random.default_rng(0)
    return (rng.standard_normal((6, 64)) if kind == "normal" else rng.standard_t(3, (6, 64))).astype(np.float32)


def error_of(weight, scale, steps):
    real = grouped_codes(weight, scale, steps) * np.repeat(steps * scale[:, None].astype(np.float64), 16, axis=1)
    return ((real - weight) ** 2).reshape(6, 4, 16).sum(axis=2)


def full_range(weight):
    """Each group's largest weight at code 7."""
    largest = np.abs(weight).reshape(6, 4, 16).max(axis=2)
    scale = (largest.max(axis=1) / (7 * 255)).astype(np.float32)
    return scale, np.clip(np.rint(largest / (7 * scale[:, None])), 1, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["normal", "heavy tails"])
def test_better_than_the_full_range(kind):
    weight = weights(kind)
    scale, steps = group_scales(weight, 16, NO_BIAS, 0.1)
    assert (scale.dtype, scale.shape, steps.dtype, steps.shape) == (np.float32, (6,), np.uint8, (6, 4))
    best, plain = error_of(weight, scale, steps), error_of(weight, *full_range(weight))
    assert best.sum() < 0.93 * plain.sum()


def test_each_group_has_the_best_scale_of_those_tried():
    weight = weights()
    scale, steps = group_scales(weight, 16, NO_BIAS, 0.1)
    best = error_of(weight, scale, steps)
    tried = np.abs(weight).reshape(6, 4, 16).max(axis=2) / (7 * scale[:, None])
    for clip in np.linspace(1.04, 0.54, 26):
        other = np.clip(np.rint(clip * tried), 1, 255).astype(np.uint8)
        assert (best <= error_of(weight, scale, other) * (1 + 1e-9)).all()


def test_an_even_grid_is_met_exactly():
    """Weights that are int4 codes times an integer keep their values."""
    rng = np.random.default_rng(1)
    codes = rng.integers(-7, 8, (6, 4, 16))
    codes[:, :, 0] = 7
    steps = rng.integers(1, 256, (6, 4))
    steps[:, 0] = 255
    weight = (codes * steps[..., None] * 0.25).reshape(6, 64).astype(np.float32)
    scale, got = group_scales(weight, 16, NO_BIAS, 0.1)
    np.testing.assert_array_equal(got, steps)
    assert error_of(weight, scale, got).max() == 0


def test_zeros_and_large_biases():
    weight = weights()
    weight[2] = 0
    bias = NO_BIAS.copy()
    bias[4] = 1e6
    scale, steps = group_scales(weight, 16, bias, 0.1)
    assert scale[2] == 1 and (steps[2] == 1).all()
    np.testing.assert_allclose(scale[4], 1e6 / (0.1 * 2**23), rtol=1e-6)


def test_twice_the_same():
    first, second = (group_scales(weights(), 16, NO_BIAS, 0.1) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_infinite_weights_are_refused():
    weight = weights()
    weight[0, 0] = np.inf
    with pytest.raises(QCompileError, match="NaN or infinity among the weights"):
        group_scales(weight, 16, NO_BIAS, 0.1)
