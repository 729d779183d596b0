"""What a mixed-precision build must keep: a drop of the metric, a latency, a size; and what is to be best."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qcompile.errors import QCompileError


@dataclass(frozen=True, slots=True)
class Drop:
    """How much worse than fp32 a metric may be: in units of the metric, or as percent of fp32's value."""

    amount: float
    percent: bool = False

    def allowed(self, baseline: float) -> float:
        """In units of the metric, whose value for fp32 is ``baseline``."""
        return self.amount / 100 * abs(baseline) if self.percent else self.amount

    def check(self, baseline: float) -> None:
        """Raises QCompileError for a share of nothing."""
        if self.percent and self.amount and not baseline:
            reason = f"fp32 is at 0 by the metric, and {self} of that is nothing"
            remedy = "give the drop in units of the metric (0.01), or labels for a metric of the task"
            raise QCompileError(reason, node="largest drop", remedy=remedy)

    def __str__(self) -> str:
        return f"{self.amount:g}%" if self.percent else f"{self.amount:g}"


def drop(text: str, option: str = "--max-drop") -> Drop:
    """ "0.5%" of the float model's value, "0.01" in units of the metric. Raises QCompileError for anything else."""
    match = re.fullmatch(r"\s*(\d*\.?\d+(?:e[+-]?\d+)?)\s*(%?)\s*", text.lower())
    if match is None:
        remedy = "write 0.5% (of the float model's value) or 0.01 (in units of the metric)"
        raise QCompileError(f"'{text}' is no drop", node=option, remedy=remedy)
    return Drop(float(match[1]), bool(match[2]))


@dataclass(frozen=True, slots=True)
class Goal:
    """max_drop: of the guarded metric. max_seconds: of one call. max_bytes: of constants. None for no limit.

    objective: "accuracy", "latency" or "size": what is best within the limits; by default accuracy, or latency if only
    the drop is limited.
    """

    max_drop: Drop | None = None
    max_seconds: float | None = None
    max_bytes: float | None = None
    objective: str | None = None

    def __post_init__(self) -> None:
        if self.max_drop is None and self.max_seconds is None and self.max_bytes is None:
            reason = "nothing limits the choice of formats"
            remedy = "give --max-drop 0.5%, --latency-budget 5ms or --size-budget 2MB"
            raise QCompileError(reason, node="mixed precision", remedy=remedy)
