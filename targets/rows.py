"""Every target that there is."""

from __future__ import annotations

from qcompile.targets import arm, x86
from qcompile.targets.target import Target

FAMILIES: tuple[tuple[Target, ...], ...] = (x86.ROWS, arm.ROWS)  # the levels of an architecture, best first
ROWS: tuple[Target, ...] = (*x86.ROWS, *arm.ROWS, *arm.CORES)
