"""Rounding that learns from data: the codes of a weight, up or down, by the error of what the layer computes.

With codes ``w~`` and what the layer reads in codes as well, ``x~``, the layer computes ``w~ x~`` in place of ``w x``.
The mean of the squared difference over samples is a quadratic function of ``e = w~ - w``::

    E |(w + e) x~ - w x|^2  =  e H e^T + 2 e g^T + const         H = E[x~^T x~],  g = w E[(x~ - x)^T x~]

Nearest rounding makes each ``e`` small by itself; errors that many inputs share the sign of add up all the same. Here
one weight after the other goes to the code that is best given all others (coordinate descent: Behdin et al., QuantEase,
2023; the objective is that of AdaRound, Nagel et al. 2020, and GPTQ, Frantar et al. 2022). No code moves further than
one step from the nearest one, as in AdaRound, so little data cannot lead it astray.
"""

from __future__ import annotations

import numpy as np

SWEEPS = 3
DAMPING = 0.01  # of the mean of the diagonal, added to it: what GPTQ adds
BLOCK = 64  # columns that are updated at once


def moments(exact: np.ndarray, coded: np.ndarray, centered: bool) -> tuple[np.ndarray, np.ndarray]:
    """H and ``E[(x~ - x)^T x~]``, (groups, K, K) each, of rows (groups, n, K); without their means if ``centered``."""
    lost = coded - exact
    if centered:
        coded, lost = coded - coded.mean(axis=1, keepdims=True), lost - lost.mean(axis=1, keepdims=True)
    across = coded.swapaxes(1, 2)
    return across @ coded / coded.shape[1], lost.swapaxes(1, 2) @ coded / coded.shape[1]


def error(weight: np.ndarray, off: np.ndarray, second: np.ndarray, lost: np.ndarray) -> float:
    """The part of the mean squared error, summed over outputs, that depends on ``off``: (groups, outputs, K)."""
    return float((off * (off @ second)).sum() + 2 * (off * (weight @ lost)).sum())


def learn_codes(
    weight: np.ndarray, step: np.ndarray, bounds: tuple[int, int], second: np.ndarray, lost: np.ndarray
) -> np.ndarray:
    """-1, 0 or 1 for each weight: what to add to its nearest code, int8.

    weight: (groups, outputs, K) float64. step: of the codes, of the same shape. bounds: smallest and largest code.
    second, lost: see ``moments``.
    """
    length = weight.shape[2]
    damping = DAMPING / length * np.trace(second, axis1=1, axis2=2).astype(second.dtype)
    second = second + np.eye(length, dtype=second.dtype) * damping[:, None, None]
    diagonal = np.einsum("gkk->gk", second)
    diagonal = np.where(diagonal > np.finfo(np.float32).tiny, diagonal, np.inf)  # always 0: nothing to learn from
    nearest = np.clip(np.rint(weight / step), *bounds)  # in float64, as codes are made
    low, high = np.maximum(nearest - 1, bounds[0]), np.minimum(nearest + 1, bounds[1])
    slope = ((nearest * step - weight) @ second + weight @ lost).astype(np.float32)  # half the gradient
    step, codes = step.astype(np.float32), nearest.astype(np.float32)
    for _ in range(SWEEPS):
        for start in range(0, length, BLOCK):
            block = slice(start, min(start + BLOCK, length))
            inner, before = slope[..., block].copy(), codes[..., block].copy()
            for k in range(block.start, block.stop):
                i = k - start
                wanted = codes[..., k] - inner[..., i] / (diagonal[:, None, k] * step[..., k])
                new = np.clip(np.rint(wanted), low[..., k], high[..., k])
                moved = (new - codes[..., k]) * step[..., k]
                codes[..., k] = new
                inner += moved[..., None] * second[:, None, k, block]
            slope += ((codes[..., block] - before) * step[..., block]) @ second[:, block]
    return (codes - nearest).astype(np.int8)
