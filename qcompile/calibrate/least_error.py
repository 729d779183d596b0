"""The numbers that channels are multiplied by so that the rounding of codes and weights errs least.

Both errors are those of a uniform rounding error in each step (see ``qcompile.calibrate.equalize``). Of several tensors
and layers their logarithms are summed, so that each counts by what it gains. The largest magnitude of a row is taken as
its p-norm, whose slope is known, and the sum is brought down by L-BFGS-B (Byrd et al., SIAM J. Sci. Comput. 1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

POWER = 32  # of the norm that stands for a maximum; of n equal values it is n^(1/32) times the maximum
STEPS = 200  # of the search at most; what it gains after these is small


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Weights that are rounded in rows, each with a step of its own.

    magnitude: (parts, rows, inputs) the largest of each input's; part i reads channels i * inputs and on. levels: steps
    from 0 to the largest of a row. mean_square: (channels,) of what is read, times the weights of a row that read it.
    """

    magnitude: np.ndarray
    levels: int
    mean_square: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class CodedTensor:
    """A tensor whose channels share the step of its codes.

    index: (channels,) which number multiplies each, -1 for none. low, high: (channels,) the range of each.
    squares: (channels,) of the weights that read each. weights: those that are rounded, None for those that do not mind
    because each channel has a step of its own.
    """

    index: np.ndarray
    low: np.ndarray
    high: np.ndarray
    squares: np.ndarray
    weights: Weights | None = None


def least_error_scales(tensors: Sequence[CodedTensor], start: np.ndarray, largest: float) -> np.ndarray:
    """(count,) float64 positive numbers, no two further apart than ``largest``, searched for from ``start``.

    The least is 1, unless some channels have no number: then these have 1.
    """
    logs = [_Logs.of(tensor) for tensor in tensors]

    def error(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope, extended = 0.0, np.zeros(numbers.size + 1), np.append(numbers, 0.0)
        for tensor, log in zip(tensors, logs, strict=True):
            value, slopes = _error(tensor, log, extended[tensor.index])
            total += value
            np.add.at(slope, tensor.index, slopes)
        return total, slope[:-1]

    free = not any((tensor.index < 0).any() for tensor in tensors)  # all numbers times another are as good
    most, first = math.log(largest) / 2, np.log(start)
    first = np.clip(first - (first.max() + first.min()) / 2 if free else first, -most, most)
    found = minimize(error, first, jac=True, method="L-BFGS-B", bounds=[(-most, most)] * first.size, options=_OPTIONS)
    return np.exp(found.x - found.x.min() if free else found.x)


_OPTIONS = {"maxiter": STEPS, "ftol": 1e-6}  # of the sum, which is of tens: far less than makes a difference


@dataclass(frozen=True, slots=True, eq=False)
class _Logs:
    """Logarithms of a tensor's magnitudes, -inf for 0. above, below: of its channels' ends. weights: of its weights."""

    above: np.ndarray
    below: np.ndarray
    weights: np.ndarray | None

    @staticmethod
    def of(tensor: CodedTensor) -> _Logs:
        with np.errstate(divide="ignore"):
            weights = None if tensor.weights is None else np.log(tensor.weights.magnitude)
            return _Logs(np.log(np.maximum(tensor.high, 0)), np.log(np.maximum(-tensor.low, 0)), weights)


def _error(tensor: CodedTensor, logs: _Logs, scale: np.ndarray) -> tuple[float, np.ndarray]:
    """The logarithm of a tensor's error, and its slope along the logarithm of each channel's number."""
    (above, at_top), (below, at_bottom) = (_norm(log + scale) for log in (logs.above, logs.below))
    squares = tensor.squares * np.exp(-2 * scale)
    width, total = (above + below).item(), squares.sum().item()
    codes = width**2 / (12 * 255**2) * total
    if not codes:
        return 0.0, np.zeros_like(scale)
    slope = codes * (2 * (above * at_top + below * at_bottom) / width - 2 * squares / total)
    if tensor.weights is None or logs.weights is None:
        return math.log(codes), slope / codes
    parts, _, inputs = logs.weights.shape
    most, shares = _norm(logs.weights - scale.reshape(parts, 1, inputs))
    steps = np.square(most[..., 0] / tensor.weights.levels) / 12
    read = (tensor.weights.mean_square * np.exp(2 * scale)).reshape(parts, inputs)
    by_part = steps.sum(axis=1)
    rounded = float((by_part * read.sum(axis=1)).sum())
    change = read * by_part[:, None] - read.sum(axis=1, keepdims=True) * (steps[..., None] * shares).sum(axis=1)
    error = codes + rounded
    return math.log(error), (slope + 2 * change.reshape(-1)) / error


def _norm(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The p-norms of the exponentials of the last axis, which is kept, and the share that each element has in them."""
    most = logs.max(axis=-1, keepdims=True)
    if not np.isfinite(most).all():
        most = np.where(np.isfinite(most), most, 0.0)
    powers = np.exp(POWER * (logs - most))
    sums = powers.sum(axis=-1, keepdims=True)
    shares = powers / np.where(sums > 0, sums, 1.0)
    return np.exp(most) * sums ** (1 / POWER), shares
