"""How sure a drop is: the paired bootstrap."""

from __future__ import annotations

import numpy as np

from qcompile.mixed.guard import Guard

RESAMPLES = 1000
CONFIDENCE = 0.95


def paired_interval(
    guard: Guard, rows: np.ndarray, base: np.ndarray, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Bounds of the drop of ``rows`` against ``base``, both (samples, n), sample by sample of the same data.

    Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): samples are drawn
    with replacement, the same for both sides, so what makes a sample hard for both does not count as uncertainty. The
    draws are the same every time; those that the metric has no number for (a correlation with a constant) do not count.
    """
    rng = np.random.default_rng(0)
    drops = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(rows), len(rows))
        drops.append(guard.drop(rows[drawn], base[drawn]))
    low, high = np.nanquantile(drops, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def unseen_share(samples: int, confidence: float = CONFIDENCE) -> float:
    """The share of answers that may change although none of so many samples did: about 3 of them.

    (Hanley and Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 1983: the rule of three.) Drawing
    from samples that are all alike tells nothing of others.
    """
    return 1 - (1 - confidence) ** (1 / samples)
