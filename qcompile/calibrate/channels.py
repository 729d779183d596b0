"""What calibration learns of each channel of a tensor: its mean, and its range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class ChannelStats:
    """Statistics of the finite values of each slice along ``axis``.

    count, sum, squares: (channels,) int64, float64, and float64 sums of squares. min, max: (channels,) float64, 0 where
    there are no values.
    """

    axis: int
    count: np.ndarray
    sum: np.ndarray
    squares: np.ndarray
    min: np.ndarray
    max: np.ndarray

    @staticmethod
    def of(values: np.ndarray, axis: int) -> ChannelStats:
        """The statistics of a float array; NaN and infinity are left out."""
        others = tuple(i for i in range(values.ndim) if i != axis)
        size = values.size // max(values.shape[axis], 1)
        low, high = values.min(axis=others, initial=np.inf), values.max(axis=others, initial=-np.inf)
        if size and np.isfinite(low).all() and np.isfinite(high).all():
            total = values.sum(axis=others, dtype=np.float64)
            low, high = low.astype(np.float64), high.astype(np.float64)
            return ChannelStats(axis, np.full(total.shape, size), total, _squares(values, axis), low, high)
        finite = np.isfinite(values)
        count = finite.sum(axis=others)
        zeroed = np.where(finite, values, np.float32(0))
        total, squares = zeroed.sum(axis=others, dtype=np.float64), _squares(zeroed, axis)
        low = np.where(finite, values, np.inf).min(axis=others, initial=np.inf)
        high = np.where(finite, values, -np.inf).max(axis=others, initial=-np.inf)
        low, high = (np.where(count > 0, bound, 0).astype(np.float64) for bound in (low, high))
        return ChannelStats(axis, count, total, squares, low, high)

    @property
    def mean(self) -> np.ndarray:
        """(channels,) float64; 0 where there are no values."""
        return self.sum / np.maximum(self.count, 1)

    @property
    def mean_square(self) -> np.ndarray:
        """(channels,) float64."""
        return self.squares / np.maximum(self.count, 1)

    def merge(self, other: ChannelStats) -> ChannelStats:
        """The statistics of the values of both, which must have the same axis and channels."""
        if (self.axis, self.sum.size) != (other.axis, other.sum.size):
            raise ValueError(f"{self.sum.size} channels along {self.axis}, {other.sum.size} along {other.axis}")
        # A side without values says nothing of the range.
        low = np.minimum(np.where(self.count > 0, self.min, np.inf), np.where(other.count > 0, other.min, np.inf))
        high = np.maximum(np.where(self.count > 0, self.max, -np.inf), np.where(other.count > 0, other.max, -np.inf))
        count = self.count + other.count
        low, high = (np.where(count > 0, bound, 0) for bound in (low, high))
        return ChannelStats(self.axis, count, self.sum + other.sum, self.squares + other.squares, low, high)

    def to_json(self) -> dict[str, Any]:
        return {
            "axis": self.axis,
            "count": self.count.tolist(),
            "sum": self.sum.tolist(),
            "squares": self.squares.tolist(),
            "min": self.min.tolist(),
            "max": self.max.tolist(),
        }

    @staticmethod
    def from_json(fields: dict[str, Any]) -> ChannelStats:
        arrays = {name: np.array(fields[name], np.float64) for name in ("sum", "squares", "min", "max")}
        return ChannelStats(int(fields["axis"]), np.array(fields["count"], np.int64), **arrays)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChannelStats):
            return NotImplemented
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("count", "sum", "squares", "min", "max")]
        return self.axis == other.axis and all(np.array_equal(a, b) for a, b in pairs)

    __hash__ = None  # type: ignore[assignment]


def _squares(values: np.ndarray, axis: int) -> np.ndarray:
    """Sums of the squares of each slice; einsum adds float32 in float64 without a copy of that size."""
    letters = "abcdefgh"[: values.ndim]
    return np.einsum(f"{letters},{letters}->{letters[axis]}", values, values, dtype=np.float64, casting="same_kind")
