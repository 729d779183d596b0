"""Where a tuning session stands, as a table and for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from qcompile.report import units
from qcompile.report.tables import table
from qcompile.targets.kernels.template import knobs_json
from qcompile.tune.record import INSTRUCTIONS, SECONDS
from qcompile.tune.session import Outcome, TaskProgress

_SHORT = {SECONDS: "us", INSTRUCTIONS: "instructions"}


def progress_table(states: Sequence[TaskProgress]) -> Table:
    """One row a task, in the order of the model; share of the cost of all of them."""
    unit = _SHORT[states[0].unit if states else SECONDS]
    numbers = ["layers", "share", f"default {unit}", f"best {unit}", "gain", "trials"]
    whole = sum(state.model_cost for state in states) or 1.0
    rows = [
        [
            _name(state),
            state.task.workload.operator,
            state.task.workload.summary,
            state.task.workload.format,
            str(len(state.task.layers)),
            f"{state.model_cost / whole:.1%}",
            "" if state.default_cost is None else cost_text(state.default_cost, state.unit),
            "" if state.search.cost is None else cost_text(state.search.cost, state.unit),
            "" if gain(state) is None else f"{gain(state):.1%}",
            str(state.trials) + (f" ({state.failed} failed)" if state.failed else ""),
            state_of(state),
        ]
        for state in states
    ]
    return table(["task", "operator", "shape", "format", *numbers, "state"], rows, right=numbers)


def gain(state: TaskProgress) -> float | None:
    """Share of the default schedule's cost that the best one saves."""
    default, best = state.default_cost, state.search.cost
    return None if default is None or best is None else max(0.0, 1 - best / default)


def state_of(state: TaskProgress) -> str:
    """In one word: "known" by the log, "finished" now, "begun", or "waiting"."""
    if state.known:
        return "known"
    if state.search.finished:
        return "finished"
    return "waiting" if state.search.best is None else "begun"


def saved(states: Sequence[TaskProgress]) -> tuple[float, float]:
    """Cost of one run of the layers with default schedules and with the best, of those that have both."""
    both = [s for s in states if s.default_cost is not None and s.search.cost is not None]
    default = sum(len(s.task.layers) * (s.default_cost or 0.0) for s in both)
    return default, sum(len(s.task.layers) * min(s.search.cost or 0.0, s.default_cost or 0.0) for s in both)


def summary(outcome: Outcome) -> list[str]:
    """What a session did, line by line."""
    states = outcome.tasks
    default, best = saved(states)
    done = sum(state.done for state in states)
    speed = f", {outcome.trials / outcome.seconds * 60:.0f} a minute" if outcome.trials else ""
    lines = [
        f"{'tasks':<10} {done} of {len(states)} finished, of {sum(len(s.task.layers) for s in states)} layers",
        f"{'trials':<10} {outcome.trials} in {outcome.seconds:.1f} s{speed}",
    ]
    if default:
        now, before = (f"{cost_text(cost, states[0].unit)} {_SHORT[states[0].unit]}" for cost in (best, default))
        lines.append(f"{'layers':<10} {now}, {before} with default schedules ({best / default:.2f}x)")
    failures = [error for state in states for error in state.errors]
    if failures:
        lines.append(f"{'failed':<10} {len(failures)}; the last: {failures[-1]}")
    if outcome.stopped != "finished":
        verb = "were" if outcome.stopped.endswith("s") else "was"  # trials, or time
        lines.append(f"{'note':<10} stopped because the {outcome.stopped} {verb} spent; run again to go on")
    return lines


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything that the table and the summary say."""
    return {
        "trials": outcome.trials,
        "seconds": round(outcome.seconds, 3),
        "trials_per_minute": round(outcome.trials / outcome.seconds * 60, 1) if outcome.trials else 0.0,
        "stopped": outcome.stopped,
        "tasks": [task_json(state) for state in outcome.tasks],
    }


def task_json(state: TaskProgress) -> dict[str, Any]:
    best = state.search.best
    return {
        "layers": state.task.layers,
        "workload": json.loads(state.key.workload),
        "batch": state.key.batch,
        "instructions": state.key.instructions,
        "unit": state.unit,
        f"default_{state.unit}": state.default_cost,
        f"best_{state.unit}": state.search.cost,
        "best_knobs": None if best is None else json.loads(knobs_json(best)),
        "trials": state.trials,
        "failed": state.failed,
        "state": state_of(state),
    }


def _name(state: TaskProgress) -> str:
    first, *others = state.task.layers
    return f"{first} +{len(others)}" if others else first


def cost_text(cost: float, unit: str) -> str:
    """Seconds as microseconds, instructions with their thousands."""
    return units.microseconds(cost * 1e6) if unit == SECONDS else f"{cost:,.0f}"
