"""``relax.quantize`` and ``relax.dequantize`` by the definitions of ``arithmetic``, per tensor or along an axis."""

from __future__ import annotations

import numpy as np
from tvm import relax


def quantize(call: relax.Call, x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
    """``clip(round_half_even(x / s), qmin - z, qmax - z) + z`` for the integer dtypes; NaN gives z."""
    dtype = np.dtype(str(call.attrs.out_dtype))
    bounds = np.iinfo(dtype)
    s, z = (_along(p, x.ndim, int(call.attrs.axis)) for p in (scale, zero_point))
    # Bounds of int32 codes are no float32 numbers, so clipping is done in float64.
    z = z.astype(np.float64)
    with np.errstate(over="ignore"):
        v = np.rint(x.astype(np.float32) / s).astype(np.float64)
    v = np.where(np.isnan(v), 0, v)
    return (np.clip(v, bounds.min - z, bounds.max - z) + z).astype(dtype)


def dequantize(call: relax.Call, codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
    """``f32(q - z) * s``."""
    s, z = (_along(p, codes.ndim, int(call.attrs.axis)) for p in (scale, zero_point))
    return (codes.astype(np.int64) - z.astype(np.int64)).astype(np.float32) * s


def _along(parameter: np.ndarray, ndim: int, axis: int) -> np.ndarray:
    """A scalar, or one value a slice of ``axis``, in a shape that broadcasts."""
    if parameter.size == 1:
        return parameter.reshape(())
    shape = [1] * ndim
    shape[axis] = -1
    return parameter.reshape(shape)
