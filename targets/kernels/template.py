"""``Template``: what the auto-tuner (``qcompile.tune``) knows of a kernel that has knobs.

Knobs are a frozen dataclass of numbers; in a log they are JSON. A new ``version`` makes what was measured before
useless, and says so.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qcompile.targets.kernels.workload import Workload

DEFAULT, TRANSFERRED, COUNTED, TUNED = "default", "transferred", "counted", "tuned"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Knobs of one layer's kernel, None for the template's own choice, and where they come from."""

    knobs: Any = None
    source: str = DEFAULT


Schedules = Callable[[Workload], Schedule]


def default_schedules(workload: Workload) -> Schedule:
    """Nothing is known."""
    return Schedule()


@dataclass(frozen=True, slots=True)
class Template:
    """A kernel generator and its knobs, for the targets of one kind of machine.

    version: raised whenever equal knobs begin to mean other code. knobs: the frozen dataclass.
    build(spec, constants, x, out, residual, target, knobs) -> kernel: knobs None for the default ones.
    default(workload, target) -> knobs: the rule that needs no measurement.
    space(workload, target) -> legal knobs. cycles(workload, target, knobs) -> the prior: predicted cycles of one call.
    extents(workload, target) -> of each knob that is an extent of a tile, how far the layer reaches; the knob to keep
    first before the others. instructions(workload, target) -> the part of a target that the code depends on, as a key:
    records of another are worth nothing.
    """

    version: int
    knobs: type
    build: Callable[..., Any]
    default: Callable[[Workload, Any], Any]
    space: Callable[[Workload, Any], Iterator[Any]]
    cycles: Callable[[Workload, Any, Any], float]
    extents: Callable[[Workload, Any], dict[str, int]]
    instructions: Callable[[Workload, Any], str]

    def is_legal(self, workload: Workload, target: Any, knobs: Any) -> bool:
        return knobs in _legal(self.space, workload, target)


@lru_cache(maxsize=64)
def _legal(space: Callable[[Workload, Any], Iterator[Any]], workload: Workload, target: Any) -> frozenset[Any]:
    return frozenset(space(workload, target))


def knobs_json(knobs: Any) -> str:
    """Canonical JSON of a template's knobs."""
    return json.dumps(dataclasses.asdict(knobs), sort_keys=True, separators=(",", ":"))


def knobs_of(template: Template, text: str) -> Any:
    """The inverse of ``knobs_json``. Raises ValueError or TypeError for what the template does not know."""
    return template.knobs(**json.loads(text))
