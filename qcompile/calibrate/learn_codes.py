"""Rounding that learns from data: the codes of a weight, up or down, by the error of what the layer computes.

With codes ``w~`` and what the layer reads in codes as well, ``x~``, the layer computes ``w~ x~`` in place of ``w x``.
The mean of the squared difference over samples is a quadratic function of ``e = w~ - w``::

    E |(w + e) x~ - w x|^2  =  e H e^T + 2 e g^T + const         H = E[x~^T x~],  g = E[w (x~ - x)^T x~]

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


def moments(weight: np.ndarray, exact: np.ndarray, coded: np.ndarray, centered: bool) -> tuple[np.ndarray, np.ndarray]:
    """``H`` (groups, K, K) and ``g`` (groups, outputs, K), of rows (groups, n, K).

    weight: (groups, outputs, K). centered: rows are taken without their means, which biases make up for.
    """
    coded, lost = _rows(exact, coded, centered)
    across, count = coded.swapaxes(1, 2), coded.shape[1]
    return across @ coded / count, (weight.astype(np.float32) @ lost.swapaxes(1, 2)) @ coded / count


def error(weight: np.ndarray, off: np.ndarray, exact: np.ndarray, coded: np.ndarray, centered: bool) -> float:
    """``E |(w + e) x~ - w x|^2`` summed over outputs, for ``e`` = ``off``; arguments as for ``moments``."""
    coded, lost = _rows(exact, coded, centered)
    changed = coded @ off.astype(np.float32).swapaxes(1, 2) + lost @ weight.astype(np.float32).swapaxes(1, 2)
    return float(np.square(changed).sum(dtype=np.float64)) / coded.shape[1]


def _rows(exact: np.ndarray, coded: np.ndarray, centered: bool) -> tuple[np.ndarray, np.ndarray]:
    """x~ and x~ - x."""
    lost = coded - exact
    if centered:
        return coded - coded.mean(axis=1, keepdims=True), lost - lost.mean(axis=1, keepdims=True)
    return coded, lost


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
    slope = (nearest * step - weight).astype(np.float32) @ second + lost  # half the gradient
    # Weights of one input of all outputs side by side: (groups, K, outputs).
    slope, codes, step = (np.ascontiguousarray(x.swapaxes(1, 2), np.float32) for x in (slope, nearest, step))
    low, high = np.maximum(codes - 1, bounds[0]), np.minimum(codes + 1, bounds[1])
    curvature = diagonal[:, :, None] * step
    for _ in range(SWEEPS):
        for start in range(0, length, BLOCK):
            block = slice(start, min(start + BLOCK, length))
            before, inner = codes[:, block].copy(), slope[:, block].copy()
            for k in range(block.start, block.stop):
                i = k - start
                new = np.clip(np.rint(codes[:, k] - inner[:, i] / curvature[:, k]), low[:, k], high[:, k])
                moved = (new - codes[:, k]) * step[:, k]
                codes[:, k] = new
                # Those before have had their turn.
                inner[:, i + 1 :] += second[:, k, k + 1 : block.stop, None] * moved[:, None]
            slope += second[:, :, block] @ ((codes[:, block] - before) * step[:, block])
    return (codes.swapaxes(1, 2) - nearest).astype(np.int8)
