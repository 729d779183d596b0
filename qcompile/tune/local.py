"""Measures on this machine."""

from __future__ import annotations

from qcompile.targets.target import Target
from qcompile.tune.places import Here
from qcompile.tune.timed import TimingMeasurer


class LocalMeasurer(TimingMeasurer):
    """See ``TimingMeasurer``."""

    def __init__(self, target: Target, workers: int | None = None):
        super().__init__(target, Here(), workers)
