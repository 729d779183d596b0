"""Measures on this machine."""

from __future__ import annotations

from qcompile.targets.target import Target
from qcompile.tune.measurer import WorkerMeasurer
from qcompile.tune.places import Here


class LocalMeasurer(WorkerMeasurer):
    """See ``WorkerMeasurer``."""

    def __init__(self, target: Target, workers: int | None = None):
        super().__init__(target, Here(), workers)
