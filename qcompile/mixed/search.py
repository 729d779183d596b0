"""The search: plans along the trade-off between loss and the objective, measured until one is found that holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from qcompile.assign.assignment import OBJECTIVES, Assignment, Budgets, assign, chosen_objective
from qcompile.assign.table import SensitivityTable
from qcompile.assign.totals import totals, uniform_formats
from qcompile.errors import QCompileError
from qcompile.mixed.goal import Goal
from qcompile.mixed.pairs import is_additive, with_pairs
from qcompile.mixed.trials import Formats, Key, Trial, Trials, key_of

LEVELS = 8  # losses that are aimed at in the first round
FINER = 3  # and between the best that holds and the next that does not
STEP = 3.0  # from one level to the next, downwards
ROUNDS = 2  # of repair by pairs
SPARE = 0.02  # of the objective that is given for accuracy, once something is found that holds


class Search:
    """One run. ``table`` grows by pairs and by checks of what was measured."""

    def __init__(self, table: SensitivityTable, trials: Trials, goal: Goal):
        self.table, self.trials, self.goal = table, trials, goal
        limits = Budgets(0.0 if goal.max_drop else None, goal.max_seconds, goal.max_bytes)
        self.objective = chosen_objective(goal.objective, limits)
        self._chosen: dict[Key, Assignment] = {}

    def run(self) -> tuple[Assignment, Trial]:
        """The best plan that holds on the half; the one that drops least if none does.

        Raises QCompileError if no plan keeps the budgets of latency and size.
        """
        self._measure({row.name: uniform_formats(self.table, row.name) for row in self.table.formats})
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
        drop = self.goal.max_drop
        return drop is None or trial.drop <= drop.allowed(self.trials.baseline)

    def _levels(self) -> Trial:
        """Measures the optima of falling losses, and of finer ones where it starts to hold."""
        if self.goal.max_drop is None or self.objective == "accuracy":
            return self._measure({"assigned": self._solve(None).formats})[0]
        free = self._solve(None)
        limits: list[float | None] = [None, *(free.totals.loss / STEP**i for i in range(1, LEVELS)), 0.0]
        found = self._try(limits)
        best = self._best(found)
        worse = [trial for trial in found if not self.holds(trial) and self._cost(trial) < self._cost(best)]
        if self.holds(best) and worse:
            low, high = best.predicted.loss, min(trial.predicted.loss for trial in worse)
            ratio = (high / max(low, high * STEP**-LEVELS)) ** (1 / (FINER + 1))
            best = self._best([best, *self._try([high / ratio**i for i in range(1, FINER + 1)])])
        if self.holds(best):
            best = self._best([best, *self._safer(best)], key=lambda trial: trial.loss)
        return best

    def _cheaper(self, best: Trial) -> list[Trial]:
        """What would be better if it held, the most expensive of it: with less loss together it might."""
        if self.goal.max_drop is None or self.objective == "accuracy":
            return []
        done = [replace(trial, predicted=totals(self.table, trial.formats)) for trial in self.trials.done]
        missed = [trial for trial in done if not self.holds(trial) and self._cost(trial) < self._cost(best)]
        return [max(missed, key=self._cost)] if missed else []

    def _try(self, limits: list[float | None]) -> list[Trial]:
        """The trials of the optima within these losses; a limit that nothing keeps is passed over."""
        candidates: dict[str, Formats] = {}
        for limit in limits:
            try:
                solved = self._solve(limit)
            except QCompileError:
                continue
            candidates[f"loss up to {solved.totals.loss:.3g}"] = solved.formats
        return self._measure(candidates)

    def _safer(self, best: Trial) -> list[Trial]:
        """What loses least for a little more of the objective: it is likelier to hold on other data."""
        within = {OBJECTIVES[self.objective]: self._cost(best) * (1 + SPARE)}
        limits = {"seconds": self.goal.max_seconds, "bytes": self.goal.max_bytes}
        for name, limit in within.items():
            limits[name] = limit if limits[name] is None else min(limit, limits[name] or limit)
        solved = assign(self.table, max_seconds=limits["seconds"], max_bytes=limits["bytes"], objective="accuracy")
        self._chosen.setdefault(key_of(solved.formats), solved)
        found = self._measure({f"loss {solved.totals.loss:.3g}": solved.formats})
        return [trial for trial in found if self.holds(trial)]

    def _solve(self, max_loss: float | None) -> Assignment:
        objective = self.objective if max_loss is not None or self.objective != "accuracy" else "accuracy"
        solved = assign(
            self.table,
            max_loss=max_loss,
            max_seconds=self.goal.max_seconds,
            max_bytes=self.goal.max_bytes,
            objective=objective,
        )
        self._chosen[key_of(solved.formats)] = solved
        return solved

    def _measure(self, candidates: Mapping[str, Formats]) -> list[Trial]:
        return self.trials.measure(self.table, candidates)

    def _best(self, trials: list[Trial], key: Callable[[Trial], float] | None = None) -> Trial:
        """Of those that hold the cheapest (or least by ``key``); if none does, the one that drops least."""
        holding = [trial for trial in trials if self.holds(trial)]
        return min(holding, key=key or self._cost) if holding else min(trials, key=lambda trial: trial.drop)

    def _cost(self, trial: Trial) -> float:
        return float(getattr(totals(self.table, trial.formats), OBJECTIVES[self.objective]))

    def _assignment(self, trial: Trial) -> Assignment:
        """With the reasons, and the table's figures as they are now."""
        return replace(self._chosen[key_of(trial.formats)], totals=totals(self.table, trial.formats))
