"""The canonical arithmetic of codes: what fold passes, kernels and the oracle must agree on to the bit.

All of it is int32 and IEEE float32, each product and sum rounded on its own (no FMA). Factors that are known at build
time are computed in float64 and rounded to float32 once (``ratio``).
"""

from __future__ import annotations

import numpy as np

from qcompile.ops import Affine, Epilogue

_INT32 = np.iinfo(np.int32)


def ratio(numerator: float, denominator: float = 1.0) -> np.float32:
    """``f32(numerator / denominator)``; beyond float32 it is inf, which saturates like any large factor."""
    with np.errstate(over="ignore"):
        return np.float32(np.float64(numerator) / np.float64(denominator))


def out_scale(epilogue: Epilogue) -> float:
    """Unit of the epilogue's ``v``: the output's scale, 1 for a float32 output."""
    return epilogue.out.scale if epilogue.out else 1.0


def multipliers(x: Affine, weight_scale: np.ndarray, out: Affine | None) -> np.ndarray:
    """The multiplier argument of a layer with weights: ``f32(s_x s_w[o] / s_out)``, float32 (O,)."""
    with np.errstate(over="ignore"):
        product = np.float64(x.scale) * np.asarray(weight_scale, np.float64)
        return (product / (out.scale if out else 1.0)).astype(np.float32)


def pool_multipliers(x: Affine, window: int, out: Affine | None) -> np.ndarray:
    """The multiplier argument of ``AvgPool2d``, float32 (window + 1,): ``f32(s_x / (count s_out))``; 0 for count 0."""
    scale = out.scale if out else 1.0
    return np.array([0.0, *(ratio(x.scale, count * scale) for count in range(1, window + 1))], np.float32)


def centered(codes: np.ndarray, q: Affine) -> np.ndarray:
    """``codes - zero_point``, int32."""
    return codes.astype(np.int32) - np.int32(q.zero_point)


def to_codes(v: np.ndarray, q: Affine, low: int, high: int) -> np.ndarray:
    """``clip(round_half_even(v), low - z, high - z) + z``: float32 in units of ``q.scale`` to codes of ``q.dtype``.

    Clipped in float, before the cast: a cast of a value beyond int32 differs between processors. +-inf saturate, NaN
    counts as 0, the zero point.
    """
    number = np.where(np.isnan(v), np.float32(0), v)
    rounded = np.clip(np.rint(number), np.float32(low - q.zero_point), np.float32(high - q.zero_point))
    return (rounded.astype(np.int32) + q.zero_point).astype(q.dtype)


def quantize(real: np.ndarray, q: Affine) -> np.ndarray:
    """Codes of real values: ``clip(round_half_even(f32(real) / f32(scale)), qmin - z, qmax - z) + z``."""
    with np.errstate(over="ignore"):
        return to_codes(np.asarray(real, np.float32) / np.float32(q.scale), q, q.qmin, q.qmax)


def dequantize(codes: np.ndarray, q: Affine) -> np.ndarray:
    """``f32(code - zero_point) * f32(scale)``."""
    return centered(np.asarray(codes), q).astype(np.float32) * np.float32(q.scale)


def code_bounds(out: Affine, clip: tuple[float, float] | None) -> tuple[int, int]:
    """Smallest and largest code of a result: the real bounds of a fused activation, quantized; infinite ones saturate.

    >>> code_bounds(Affine(0.1, 10), (0.0, 6.0))
    (10, 70)
    """
    if clip is None:
        return out.qmin, out.qmax
    low, high = quantize(np.array(clip), out)
    return int(low), int(high)


def requantize(codes: np.ndarray, x: Affine, out: Affine) -> np.ndarray:
    """The same real values in the codes of ``out``: see ``ops.Requantize``."""
    with np.errstate(over="ignore"):
        v = centered(codes, x).astype(np.float32) * ratio(x.scale, out.scale)
    return to_codes(v, out, out.qmin, out.qmax)


def exact_int32(total: np.ndarray) -> np.ndarray:
    """An exact sum (int64, or float64 holding integers) as int32.

    Raises
    ------
    OverflowError: if a sum does not fit int32; a kernel's would have wrapped around.
    """
    if total.size and (total.max() > _INT32.max or total.min() < _INT32.min):
        worst = total.flat[np.argmax(np.abs(total))]
        raise OverflowError(f"a sum of products, {int(worst)}, does not fit the int32 accumulator")
    return total.astype(np.int32)


def finish(v: np.ndarray, epilogue: Epilogue, residual: np.ndarray | None = None) -> np.ndarray:
    """What follows the sum of a layer, see ``ops.Epilogue``: residual, clip, rounding to codes.

    v: float32, in units of ``out.scale`` (of 1 if ``out`` is None). residual: codes, or float32, of v's shape.
    """
    # Large scales may reach inf, and inf - inf NaN; to_codes says what becomes of them.
    with np.errstate(over="ignore", invalid="ignore"):
        if epilogue.residual is not None:
            factor = ratio(epilogue.residual.scale, out_scale(epilogue))
            v = v + centered(residual, epilogue.residual).astype(np.float32) * factor
        elif epilogue.residual_is_float:
            v = v + residual
    if epilogue.out is None:
        if epilogue.clip is None:
            return v
        low, high = np.array(epilogue.clip, np.float32)
        return np.clip(v, low, high)
    return to_codes(v, epilogue.out, *code_bounds(epilogue.out, epilogue.clip))


def scaled(total: np.ndarray, factor: np.ndarray | np.float32) -> np.ndarray:
    """``f32(total) * factor`` of an int32 sum, rounded twice."""
    with np.errstate(over="ignore", invalid="ignore"):
        return total.astype(np.float32) * factor
