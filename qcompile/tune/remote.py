"""Measures on boards behind TVM's tracker; this machine builds."""

from __future__ import annotations

from qcompile.targets.target import Target
from qcompile.tune.places import Tracker
from qcompile.tune.timed import TimingMeasurer


class RemoteMeasurer(TimingMeasurer):
    """See ``TimingMeasurer``. Servers registered as ``key`` must be alike; their work is trusted, and so must we be.

    wait: seconds until a missing server is an error.
    """

    def __init__(self, target: Target, host: str, port: int, key: str, workers: int | None = None, wait: float = 60.0):
        super().__init__(target, Tracker(host, port, key, wait), workers)
