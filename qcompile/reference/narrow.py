"""Floats of 16 and 8 bits: which numbers there are, rounding float32 to them, and their bits.

A number beyond the largest one becomes that (it saturates), as tensors that overflow are of no use; bfloat16 has the
range of float32 and keeps infinities. NaN stays NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.reference import bfloat16


@dataclass(frozen=True, slots=True)
class Narrow:
    """A type of floats: sign, exponent, ``mantissa`` bits of fraction.

    least: exponent of the smallest normal number; below, numbers are 2 ** (least - mantissa) apart. largest: finite
    number. nan: bits of one.
    """

    bits: str  # numpy's type of as many bits
    mantissa: int
    least: int
    largest: float
    nan: int

    @property
    def magic(self) -> float:
        """Times the power of two below |v|: a sum with it, and a difference, round v to the mantissa's last bit."""
        return 1.5 * 2.0 ** (23 - self.mantissa)


# IEEE 754 binary16; and Micikevicius et al., "FP8 formats for deep learning", 2022: E4M3 has no infinities.
NARROW = {
    "float16": Narrow("uint16", 10, -14, 65504.0, 0x7E00),
    "float8_e4m3fn": Narrow("uint8", 3, -6, 448.0, 0x7F),
    "float8_e5m2": Narrow("uint8", 2, -14, 57344.0, 0x7E),
}


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values rounded to ``dtype``, to nearest, ties to even; for float32 as they are."""
    if dtype == "float32":
        return values
    if dtype == "bfloat16":
        return bfloat16.rounded(values)
    row = NARROW[dtype]
    v = np.clip(np.asarray(values, np.float32), np.float32(-row.largest), np.float32(row.largest))
    power = np.maximum((v.view(np.uint32) & 0x7F800000).view(np.float32), np.float32(2.0**row.least))
    magic = power * np.float32(row.magic)
    return (v + magic) - magic


def to_bits(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values rounded to ``dtype``, as its bits."""
    if dtype == "bfloat16":
        return bfloat16.to_bits(values)
    row = NARROW[dtype]
    values = np.ascontiguousarray(values, np.float32)
    size = np.abs(rounded(values, dtype))
    bits = size.view(np.uint32)
    normal = (bits >> (23 - row.mantissa)).astype(np.int64) - ((126 + row.least) << row.mantissa)
    small = size < 2.0**row.least
    few = np.where(small, size, 0) * 2.0 ** (row.mantissa - row.least)
    sign = np.signbit(values).astype(np.int64) << (8 * np.dtype(row.bits).itemsize - 1)
    found = np.where(small, few.astype(np.int64), normal) | sign
    return np.where(np.isnan(values), row.nan, found).astype(row.bits)


def from_bits(bits: np.ndarray, dtype: str) -> np.ndarray:
    """The float32 values of finite numbers and NaN."""
    if dtype == "bfloat16":
        return bfloat16.from_bits(bits)
    row = NARROW[dtype]
    sign = 1 << (8 * np.dtype(row.bits).itemsize - 1)
    size = bits.astype(np.uint32) & (sign - 1)
    few = size.astype(np.float32) * np.float32(2.0 ** (row.least - row.mantissa))
    normal = ((size << (23 - row.mantissa)) + ((126 + row.least) << 23)).astype(np.uint32).view(np.float32)
    magnitude = np.where(size >> row.mantissa, normal, few)
    magnitude = np.where(size > to_bits(np.array([row.largest]), dtype), np.float32(np.nan), magnitude)
    return np.where(bits & sign, -magnitude, magnitude).astype(np.float32)
