"""A mixed-precision search: what was measured, predicted beside real, and what the held-back data say."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from rich.table import Table

from qcompile.mixed.mixed import MixedPlan
from qcompile.mixed.trials import Trial
from qcompile.report import units
from qcompile.report.assignment import assignment_values, number, values_of
from qcompile.report.tables import table


def trials_table(found: MixedPlan) -> Table:
    """One row a plan that was measured, fastest first; the chosen one has an arrow."""
    rows = []
    for trial in sorted(found.trials, key=lambda trial: (trial.predicted.seconds, trial.loss)):
        counts = Counter(trial.formats.values())
        rows.append(
            [
                ("> " if _is_chosen(trial, found) else "  ") + trial.name,
                units.microseconds(trial.predicted.seconds * 1e6),
                units.size(trial.predicted.bytes),
                number(trial.predicted.loss),
                number(trial.loss),
                number(trial.drop),
                number(trial.expected),
                ", ".join(f"{counts[row.name]} {row.name}" for row in found.table.formats if counts[row.name]),
            ]
        )
    metric = found.table.metric
    headers = [
        "  plan",
        "us",
        "size",
        f"{metric} predicted",
        f"{metric} measured",
        f"drop of {found.held.metric}",
        "to expect",
    ]
    return table([*headers, "formats of groups"], rows, right=headers[1:])


def verdict(found: MixedPlan) -> list[tuple[str, str]]:
    """Facts for the end of a build: (key, text)."""
    held = found.held
    text = (
        f"{held.metric} {number4(held.value)} against {number4(held.baseline)} in fp32: drop {number(held.drop)}, "
        f"{held.confidence:.0%} interval {number(held.low)} to {number(held.high)} ({held.samples} samples held back)"
    )
    facts = [("accuracy", text)]
    if held.seen:
        seen = f"the sensitivities are of {held.seen} of the {held.samples} samples held back, too"
        facts.append(("note", f"{seen}; for figures of new data, analyze others"))
    elif held.seen is None:
        facts.append(("note", "the table does not say which samples its sensitivities are of: some may be held back"))
    if found.seconds is not None:
        facts.append(("latency", f"{units.microseconds(found.seconds * 1e6)} us, measured"))
    elif found.goal.max_seconds is not None:
        seconds = found.assignment.totals.seconds
        facts.append(("latency", f"{units.microseconds(seconds * 1e6)} us, predicted: a build could not be timed here"))
    if found.goal.max_drop is not None:
        facts.append(("max drop", f"{found.goal.max_drop} {'not kept' if 'drop' in found.missed else 'kept'}"))
    return facts


def number4(value: float) -> str:
    return f"{value:.4g}"


def mixed_values(found: MixedPlan) -> dict[str, Any]:
    """For machines: the choice, all that was measured, and the held-back half."""
    trials = [
        {
            "name": trial.name,
            "formats": dict(trial.formats),
            "predicted": values_of(trial.predicted),
            "loss": trial.loss,
            "drop": trial.drop,
            "expected_drop": trial.expected,
            "chosen": _is_chosen(trial, found),
        }
        for trial in found.trials
    ]
    return {
        **assignment_values(found.assignment, found.table),
        "trials": trials,
        "held": asdict(found.held),
        "seconds": found.seconds,
        "met": found.met,
        "unmet": list(found.unmet),
    }


def _is_chosen(trial: Trial, found: MixedPlan) -> bool:
    return dict(trial.formats) == dict(found.chosen.formats)
