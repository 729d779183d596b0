"""Schedules for little code rather than for speed: what is compiled for correctness alone takes LLVM's time as well."""

from __future__ import annotations

from functools import lru_cache

from qcompile.targets.kernels.template import Schedule
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target

_TILE = 4  # vectors that are summed up at a time, at most


@lru_cache(maxsize=512)
def short_schedule(workload: Workload, target: Target) -> Schedule:
    """The fastest knobs by the prior among those of small tiles."""
    template = TEMPLATES[workload.operator]
    space = list(template.space(workload, target))
    small = [knobs for knobs in space if knobs.results <= _TILE] or [min(space, key=lambda knobs: knobs.results)]
    return Schedule(min(small, key=lambda knobs: template.cycles(workload, target, knobs)))
