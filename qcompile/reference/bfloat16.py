"""bfloat16: the upper half of a float32."""

from __future__ import annotations

import numpy as np


def to_bits(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to bfloat16, to nearest, ties to even, as uint16; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, nearest).astype(np.uint16)


def from_bits(bits: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16 numbers."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to bfloat16."""
    return from_bits(to_bits(values))
