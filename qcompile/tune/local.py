"""Measures on this machine."""

from __future__ import annotations

import platform

from qcompile.errors import QCompileError
from qcompile.rpc.places import Here
from qcompile.targets.target import Target
from qcompile.tune.timed import TimingMeasurer


class LocalMeasurer(TimingMeasurer):
    """See ``TimingMeasurer``."""

    def __init__(self, target: Target, workers: int | None = None):
        check_here(target)
        super().__init__(target, Here(), workers)


def check_here(target: Target) -> None:
    """Raises ``QCompileError`` if this machine is of another architecture."""
    arch = target.triple.split("-")[0]
    if arch != platform.machine():
        raise QCompileError(
            f"this machine is {platform.machine()}, and cannot time code for {target.name} ({arch})",
            remedy="measure on a board (--runner rpc), or count instructions under QEMU (--runner icount)",
        )
