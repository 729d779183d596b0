"""Searches the knobs of one workload: the template's prior says where to begin, measurements where to go on.

The prior (cycles counted from registers, vector widths and remainders) ranks a space of some thousand schedules well
enough that the best is among its first few dozen, but not well enough to name it. What it misses is learnt: each value
of each knob has a factor, fitted to the measurements so far (ridge regression of log(cost / prior)). A batch takes some
of its candidates from the neighbours of the best (one knob moved by one step), the others from the best by prediction,
and the best itself once more, as a yardstick measured at the same time as the rest,
where measuring again gives another number.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target

BETTER = 0.99  # of the least cost: what a candidate must reach to be called better; less is noise
_NEAR = 3  # one part in so many of a batch are neighbours
_LEARN_FROM = 4  # measurements that say something of the prior's mistakes
_STIFFNESS = 0.5  # of the ridge: what it takes to believe that a value has a factor of its own
WORTH_TRYING = 1.6  # times the fewest predicted cycles: what the prior may be wrong by


class KnobSearch:
    """Knobs proposed, costs told, in one unit; None for a candidate that failed.

    seeds: knobs to begin with, beside the default (the best of a similar workload, say); illegal ones are ignored.
    tried: what earlier sessions measured. patience: batches in a row that find nothing better, until the search ends.
    """

    def __init__(
        self,
        workload: Workload,
        target: Target | CudaTarget,
        seeds: Sequence[Any] = (),
        tried: Mapping[Any, float | None] = {},
        patience: int = 2,
    ):
        self.patience = patience
        template = TEMPLATES[workload.operator]
        self.default = template.default(workload, target)
        self._cycles = {knobs: template.cycles(workload, target, knobs) for knobs in template.space(workload, target)}
        self.seeds = [knobs for knobs in dict.fromkeys([self.default, *seeds]) if knobs in self._cycles]
        self.tried = {knobs: cost for knobs, cost in tried.items() if knobs in self._cycles}
        measured = {knobs: cost for knobs, cost in self.tried.items() if cost is not None}
        self.best: Any = min(measured, key=measured.__getitem__, default=None)
        self.idle = 0  # batches since the last improvement
        self.gain = 1.0  # of the last batch that improved: 1 - new cost / old cost; 1 before anything is known

    @property
    def cost(self) -> float | None:
        """Of the best candidate."""
        return None if self.best is None else self.tried[self.best]

    @property
    def promise(self) -> float:
        """The share of its cost that another batch may save: halved with each batch that does not."""
        return 0.0 if self.finished else min(self.gain, 0.3) / 2**self.idle

    @property
    def finished(self) -> bool:
        return self.idle >= self.patience or all(knobs in self.tried for knobs in self._worth)

    def propose(self, count: int) -> list[Any]:
        """Up to ``count`` candidates that were not tried yet; none once the space is exhausted."""
        chosen = dict.fromkeys(knobs for knobs in self.seeds if knobs not in self.tried)
        if self.best is not None:
            near = [knobs for knobs in self._neighbours(self.best) if knobs not in self.tried and knobs not in chosen]
            chosen |= dict.fromkeys(near[: max(1, (count - len(chosen)) // _NEAR)])
        for knobs in self._left():
            if len(chosen) >= count:
                break
            chosen.setdefault(knobs)
        return list(chosen)[:count]

    def tell(self, costs: Mapping[Any, float | None]) -> None:
        """Costs of one batch, measured together: where the best so far is among them, its new cost is what counts."""
        before = costs.get(self.best) or self.cost
        self.tried |= costs
        good = {knobs: cost for knobs, cost in costs.items() if cost is not None}
        best = min(good, key=good.__getitem__, default=None)
        if best is None:
            self.idle += 1
        elif before is None:
            self.best = best  # of the first batch
        elif good[best] < before * BETTER:
            self.gain, self.idle, self.best = 1 - good[best] / before, 0, best
        else:
            self.idle += 1

    def _left(self) -> Iterator[Any]:
        """What is left and worth trying, the most promising first; of knobs that cannot be told apart, at first only
        those that are most like the default."""
        predicted = self._predicted()
        seen = {predicted[knobs] for knobs in self.tried if knobs in predicted}
        later = []
        for knobs in sorted(self._worth, key=lambda knobs: (predicted[knobs], _difference(knobs, self.default))):
            if knobs in self.tried:
                continue
            if predicted[knobs] in seen:
                later.append(knobs)
                continue
            seen.add(predicted[knobs])
            yield knobs
        yield from later

    def _predicted(self) -> dict[Any, float]:
        """Cost of everything worth trying, up to a factor that all have in common."""
        known = {knobs: cost for knobs, cost in self.tried.items() if cost is not None}
        cycles = np.array([self._cycles[knobs] for knobs in self._worth])
        if len(known) >= _LEARN_FROM:
            residual = np.array([np.log(cost / self._cycles[knobs]) for knobs, cost in known.items()])
            factors = _ridge(self._features(known), residual - residual.mean())
            cycles = cycles * np.exp(self._all_features @ factors)
        return dict(zip(self._worth, np.round(cycles, 6), strict=True))

    def _features(self, candidates: Iterable[Any]) -> np.ndarray:
        """(candidates, values of all knobs): 1 where a candidate has the value."""
        return np.array([[_values(k)[name] == value for name, value in self._columns] for k in candidates], float)

    @cached_property
    def _all_features(self) -> np.ndarray:
        return self._features(self._worth)

    @cached_property
    def _columns(self) -> list[tuple[str, Any]]:
        return sorted({item for knobs in self._cycles for item in _values(knobs).items()})

    @cached_property
    def _worth(self) -> list[Any]:
        limit = min(self._cycles.values()) * WORTH_TRYING
        return [knobs for knobs, cycles in self._cycles.items() if cycles <= limit]

    def _neighbours(self, knobs: Any) -> list[Any]:
        """Legal knobs with one field moved to its next value up or down, by the prior."""
        found = []
        for name, mine in _values(knobs).items():
            rest = _rest(knobs, name)
            others = sorted((getattr(k, name), k) for k in self._lines[name][rest] if k != knobs)
            found += [k for value, k in others if value < mine][-1:] + [k for value, k in others if value > mine][:1]
        return sorted(found, key=self._cycles.__getitem__)

    @cached_property
    def _lines(self) -> dict[str, dict[tuple, list[Any]]]:
        """For each field: all other fields -> the knobs that differ in this one only."""
        lines: dict[str, dict[tuple, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for knobs in self._cycles:
            for name in _values(knobs):
                lines[name][_rest(knobs, name)].append(knobs)
        return lines


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.solve(x.T @ x + _STIFFNESS * np.eye(x.shape[1]), x.T @ y)


def _values(knobs: Any) -> dict[str, Any]:
    return {field.name: getattr(knobs, field.name) for field in dataclasses.fields(knobs)}


def _rest(knobs: Any, without: str) -> tuple:
    return tuple(value for name, value in _values(knobs).items() if name != without)


def _difference(a: Any, b: Any) -> int:
    return sum(x != y for x, y in zip(_values(a).values(), _values(b).values(), strict=True))
