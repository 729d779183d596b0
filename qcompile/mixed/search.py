"""The search: plans along the trade-off between loss and the objective, measured until one is found that holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from qcompile.assign.assignment import OBJECTIVES, Assignment, Budgets, assign, chosen_objective
from qcompile.assign.table import SensitivityTable
from qcompile.assign.totals import totals, uniform_formats
from qcompile.mixed.goal import Goal
from qcompile.mixed.pairs import is_additive, with_pairs
from qcompile.mixed.trials import Formats, Key, Trial, Trials, key_of

# Of the objective, beyond the least, that are tried at first.
LEVELS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
FINER = 3  # between the first level that holds and the last that does not
ROUNDS = 2  # of repair by pairs
# Of the objective, given for less loss where a plan holds but might not on other data: a drop that a few hundred
# samples show is too coarse to tell near plans apart, and the loss is not.
SPARE = 0.05


class Search:
    """One run. ``table`` grows by pairs and by checks of what was measured."""

    def __init__(self, table: SensitivityTable, trials: Trials, goal: Goal):
        self.table, self.trials, self.goal = table, trials, goal
        limits = Budgets(0.0 if goal.max_drop else None, goal.max_seconds, goal.max_bytes)
        self.objective = chosen_objective(goal.objective, limits)
        self._chosen: dict[Key, Assignment] = {}

    def run(self) -> tuple[Assignment, Trial]:
        """The best plan that holds on the half; the one that drops least if none does.

        Raises QCompileError if no plan keeps the budgets of latency and size, or the largest drop is a share of 0.
        """
        self._measure({row.name: uniform_formats(self.table, row.name) for row in self.table.formats})
        if self.goal.max_drop is not None:
            self.goal.max_drop.check(self.trials.baseline)
        found = [self._levels()]
        for _ in range(ROUNDS):
            suspect = next((trial for trial in (found[-1], *self._cheaper(found[-1])) if not is_additive(trial)), None)
            if suspect is None:
                break
            more = with_pairs(self.table, suspect.formats, self.trials)
            if len(more.pairs) == len(self.table.pairs):
                break
            self.table = more
            found.append(self._levels())
        best = self._best(found, key=(lambda trial: trial.loss) if self.objective == "accuracy" else None)
        return self._assignment(best), best

    def holds(self, trial: Trial) -> bool:
        return trial.expected <= self._allowed()

    def _allowed(self) -> float:
        drop = self.goal.max_drop
        return math.inf if drop is None else drop.allowed(self.trials.baseline)

    def _levels(self) -> Trial:
        """Measures what loses least within ever more of the objective, and finer where it starts to hold."""
        most_accurate = self._solve("accuracy", None).formats
        if self.goal.max_drop is None or self.objective == "accuracy":
            return self._measure({"assigned": most_accurate})[0]
        least = getattr(self._solve(self.objective, None).totals, OBJECTIVES[self.objective])
        found = self._try([least * (1 + share) for share in LEVELS])
        best = self._best([*found, *self._measure({"most accurate": most_accurate})])
        missed = [self._cost(trial) for trial in found if self._cost(trial) < self._cost(best)]
        if self.holds(best) and missed:
            ratio = (self._cost(best) / max(missed)) ** (1 / (FINER + 1))
            best = self._best([best, *self._try([max(missed) * ratio**i for i in range(1, FINER + 1)])])
        if self.holds(best) and self.trials.at_most(best) > self._allowed():
            safer = [trial for trial in self._try([self._cost(best) * (1 + SPARE)]) if self.holds(trial)]
            best = self._best([best, *safer], key=lambda trial: trial.loss)
        return best

    def _cheaper(self, best: Trial) -> list[Trial]:
        """What would be better if it held, the most expensive of it: with less loss together it might."""
        if self.goal.max_drop is None or self.objective == "accuracy":
            return []
        done = [replace(trial, predicted=totals(self.table, trial.formats)) for trial in self.trials.done]
        missed = [trial for trial in done if not self.holds(trial) and self._cost(trial) < self._cost(best)]
        return [max(missed, key=self._cost)] if missed else []

    def _try(self, limits: list[float]) -> list[Trial]:
        """The trials of what loses least within these limits of the objective."""
        solved = [self._solve("accuracy", limit) for limit in limits]
        return self._measure({f"loss {one.totals.loss:.3g}": one.formats for one in solved})

    def _solve(self, objective: str, limit: float | None) -> Assignment:
        """The optimum within the goal's budgets. limit: of the goal's objective, besides."""
        limits = {"seconds": self.goal.max_seconds, "bytes": self.goal.max_bytes}
        if limit is not None:
            name = OBJECTIVES[self.objective]
            budget = limits[name]
            limits[name] = limit if budget is None else min(limit, budget)
        solved = assign(self.table, max_seconds=limits["seconds"], max_bytes=limits["bytes"], objective=objective)
        self._chosen[key_of(solved.formats)] = solved
        return solved

    def _measure(self, candidates: Mapping[str, Formats]) -> list[Trial]:
        return self.trials.measure(self.table, candidates)

    def _best(self, trials: list[Trial], key: Callable[[Trial], float] | None = None) -> Trial:
        """Of those that hold the cheapest (or least by ``key``); if none does, the one that drops least."""
        holding = [trial for trial in trials if self.holds(trial)]
        return min(holding, key=key or self._cost) if holding else min(trials, key=lambda trial: trial.expected)

    def _cost(self, trial: Trial) -> float:
        return float(getattr(totals(self.table, trial.formats), OBJECTIVES[self.objective]))

    def _assignment(self, trial: Trial) -> Assignment:
        """With the reasons, and the table's figures as they are now."""
        return replace(self._chosen[key_of(trial.formats)], totals=totals(self.table, trial.formats))
