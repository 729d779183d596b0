"""A histogram that grows by doubling its bins and does not depend on the order in which values arrive.

Bins are ``2**exponent`` wide and lie on the grid that starts at 0: bin ``k`` counts the values in ``[k w, (k + 1)
w)``. The range always includes 0, and the exponent is the smallest at which no more than 2048 bins are needed. Both
depend on the smallest and the largest value only, and doubling the width merges bins 2k and 2k + 1 exactly. So the
histogram of a stream, in whatever order and portions it came, equals the histogram of all its values at once, count
for count::

    exponent -2   | 3 | 0 | 5 | 1 | 2 |          bins -1 0 1 2 3
    exponent -1   |   3   |   5   |   3   |      bins   -1 0 1
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

BINS = 2048  # at most; between 1025 and 2048 unless all values are zero or next to it
MIN_EXPONENT = -126  # 2**126 is the largest scale factor that keeps a float32 of less than 2048 bins finite
CHUNK = 1 << 16  # values binned at a time: what they need stays in the L2 cache


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of finite float32 values. ``counts[i]`` are those in bin ``first + i``.

    exponent: log2 of the bin width. first: number of the lowest bin, <= 0.
    counts: (bins,) int64, read-only; from the bin of the smallest value (or of 0) to the bin of the largest (or of 0).
    """

    exponent: int = MIN_EXPONENT
    first: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))

    def __post_init__(self) -> None:
        counts = np.array(self.counts, np.int64)
        if counts.ndim != 1 or not -self.first < counts.size <= BINS or self.first > 0:
            raise ValueError(f"bins {self.first} to {self.first + counts.size - 1}: not {BINS} bins or fewer around 0")
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)

    @staticmethod
    def of(values: np.ndarray) -> Histogram:
        """The histogram of an array of finite values, taken as float32; ValueError for NaN and infinity."""
        flat = np.asarray(values, np.float32).reshape(-1)
        if not flat.size:
            return Histogram()
        low, high = min(float(flat.min()), 0.0), max(float(flat.max()), 0.0)
        if not math.isfinite(high - low):
            raise ValueError("a histogram holds finite values only")
        exponent = _exponent(low, high)
        first, last = _bin(low, exponent), _bin(high, exponent)
        # Scaling by a power of two is exact, but scaling down could turn a tiny negative value into -0: float64 cannot.
        scale = np.float32(2.0**-exponent) if exponent <= 0 else np.float64(2.0**-exponent)
        counts = np.zeros(last - first + 1, np.int64)
        for start in range(0, flat.size, CHUNK):
            index = flat[start : start + CHUNK] * scale
            if first < 0:
                np.floor(index, out=index)
                index -= index.dtype.type(first)
            counts += np.bincount(index.astype(np.intp), minlength=counts.size)
        return Histogram(exponent, first, counts)

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Width of a bin: a power of two."""
        return 2.0**self.exponent

    @property
    def edges(self) -> np.ndarray:
        """(bins + 1,) float64: the bounds of the bins, exact."""
        return np.arange(self.first, self.first + self.counts.size + 1) * self.width

    @property
    def centers(self) -> np.ndarray:
        """(bins,) float64: the middle of each bin, exact."""
        return (np.arange(self.first, self.first + self.counts.size) + 0.5) * self.width

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of the values of both."""
        exponent = max(self.exponent, other.exponent)
        while True:
            a, b = self._coarser(exponent), other._coarser(exponent)
            first = min(a.first, b.first)
            size = max(a.first + a.counts.size, b.first + b.counts.size) - first
            if size <= BINS:
                break
            exponent += 1
        counts = np.zeros(size, np.int64)
        for part in (a, b):
            counts[part.first - first :][: part.counts.size] += part.counts
        return Histogram(exponent, first, counts)

    def _coarser(self, exponent: int) -> Histogram:
        """The same values in bins of ``2**exponent``, which is no less than now."""
        doublings = min(exponent - self.exponent, BINS.bit_length() - 1)  # by then only the bins -1 and 0 are left
        if not doublings:
            return Histogram(exponent, self.first, self.counts)
        first = self.first >> doublings
        last = (self.first + self.counts.size - 1) >> doublings
        fine = np.zeros((last - first + 1) << doublings, np.int64)
        fine[self.first - (first << doublings) :][: self.counts.size] = self.counts
        return Histogram(exponent, first, fine.reshape(-1, 1 << doublings).sum(axis=1))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return (self.exponent, self.first) == (other.exponent, other.first) and np.array_equal(
            self.counts, other.counts
        )

    __hash__ = None  # type: ignore[assignment]


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _exponent(low: float, high: float) -> int:
    """The smallest exponent at which the bins from that of ``low`` to that of ``high`` are no more than ``BINS``."""
    if low == high:
        return MIN_EXPONENT
    exponent = max(math.frexp((high - low) / BINS)[1] - 2, MIN_EXPONENT)
    while _bin(high, exponent) - _bin(low, exponent) >= BINS:
        exponent += 1
    return exponent
