"""The float form of an integer layer: the same spec on real numbers, which the integer result must stay close to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcompile.ops import AvgPool2d, Binary, Conv2d, ConvTranspose2d, Dense, Epilogue, Mean
from qcompile.reference import arithmetic
from qcompile.reference.interpreter import COMPOSITES
from tests.properties.cases import Case


def run(case: Case) -> np.ndarray:
    return COMPOSITES[type(case.spec)](case.spec, *case.args)


def real_result(case: Case, of_magnitudes: bool = False) -> np.ndarray:
    """What ``case`` computes in real numbers, by the float form of its spec; multipliers tell the scales of weights.

    of_magnitudes: of the absolute values of all terms, not clipped: what their float32 rounding errors grow with.
    """
    spec = case.spec
    size = np.abs if of_magnitudes else np.asarray
    epilogue = spec.epilogue
    residual = [arithmetic.dequantize(case.args[-1], epilogue.residual)] if epilogue.residual else []
    residual = [case.args[-1]] if epilogue.residual_is_float else residual
    floating = Epilogue(clip=None if of_magnitudes else epilogue.clip, residual_is_float=bool(residual))
    if isinstance(spec, Binary):
        args = [arithmetic.dequantize(x, q) for x, q in zip(case.args, (spec.a, spec.b), strict=True)]
        return COMPOSITES[Binary](replace(spec, a=None, b=None, epilogue=floating), *map(size, args))
    args = [arithmetic.dequantize(case.args[0], spec.x)]
    if not isinstance(spec, (AvgPool2d, Mean)):
        _, weight, bias, multiplier = case.args[:4]
        scale = multiplier.astype(np.float64) * arithmetic.out_scale(epilogue) / spec.x.scale
        args += [_real_weight(spec, weight, scale), (bias * scale * spec.x.scale).astype(np.float32)]
    own = {} if isinstance(spec, (AvgPool2d, Mean)) else {"weights": "", "group": 0}
    return COMPOSITES[type(spec)](replace(spec, x=None, epilogue=floating, **own), *map(size, [*args, *residual]))


def assert_within_half_a_step(case: Case) -> None:
    """Codes: half a step from the real value clipped to what codes can hold. Floats: float32 accuracy of the terms."""
    out = case.spec.epilogue.out
    real = real_result(case).astype(np.float64)
    got = run(case)
    scale = max(np.abs(real).max(initial=1.0), real_result(case, of_magnitudes=True).max(initial=1.0))
    if out is None:
        np.testing.assert_allclose(got, real, rtol=1e-5, atol=1e-5 * scale)
        return
    low, high = ((bound - out.zero_point) * out.scale for bound in (out.qmin, out.qmax))
    error = np.abs((got.astype(np.float64) - out.zero_point) * out.scale - np.clip(real, low, high))
    assert error.max() <= 0.5 * out.scale + 1e-5 * scale


def _real_weight(spec: Conv2d | ConvTranspose2d | Dense, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Weights times the scale of their output channel."""
    taps = [1] * (weight.ndim - 2)
    if isinstance(spec, ConvTranspose2d):  # (C, O/groups, ...): a group's inputs are together, so are its outputs
        grouped = weight.reshape(spec.groups, -1, *weight.shape[1:]) * scale.reshape(spec.groups, 1, -1, *taps)
        return grouped.reshape(weight.shape).astype(np.float32)
    return (weight * scale.reshape(-1, 1, *taps)).astype(np.float32)
