"""How many right answers a change of precision costs to expect, from how far answers are from tipping over.

Whether the few answers that tip are right or wrong ones is chance: of 450 samples, 6 of 8 may be right ones, and on the
next 450 it is 3 of 6. What a change does to margins, the right class's logarithm of probability less the best other
one's, is measured on every sample; so let any sample's change have met any other one. The share of answers that are
right, less its mean over all such pairs, is the drop to expect, with half the variance (a step of the kind of Rao and
Blackwell), as long as changes do not depend on which sample they meet. Where they are clearly larger for answers that
were sure, these do not tip anyway: only samples near tipping over count.
"""

from __future__ import annotations

import numpy as np

from qcompile.analyze.metrics import Arrays, hits, labels_of, log_probabilities

NEAR = 4.0  # standard deviations of the changes that a margin may be from 0
FEWEST = 20  # changes that say something of their distribution


def measure(output: str, probabilities: bool, reference: Arrays, changed: Arrays, labels: Arrays) -> np.ndarray:
    """As ``hits``, right answers and their number; then the margin of each."""
    log_p = log_probabilities(changed[output], probabilities)
    log_p = log_p.reshape(-1, log_p.shape[-1])
    rows, right = np.arange(len(log_p)), labels_of(labels, *log_p.shape)
    own = log_p[rows, right]
    log_p[rows, right] = -np.inf
    return np.concatenate([hits(output, reference, changed, labels), own - log_p.max(axis=-1)])


def expected_drop(rows: np.ndarray, base: np.ndarray) -> float | None:
    """Of the share of right answers, from rows (samples, 2 + answers) as ``measure`` gives them.

    None if too few answers are near tipping over to tell.
    """
    margins, changes = base[:, 2:].reshape(-1), (rows[:, 2:] - base[:, 2:]).reshape(-1)
    there = ~np.isnan(margins)  # not all, of a batch that was not full
    margins, changes = margins[there], changes[there]
    spread, near = float(changes.std()), np.ones(margins.shape, bool)
    for _ in range(3):  # the spread of those near depends on who is near, a little
        near = np.abs(margins) <= NEAR * spread
        if near.sum() < FEWEST:
            return None
        spread = float(changes[near].std())
    drawn = np.sort(changes[near])
    stay = 1 - np.searchsorted(drawn, -margins[near], side="right") / drawn.size  # of changes that leave it above 0
    return float(((margins[near] > 0).sum() - stay.sum()) / margins.size)
