"""Searches the knobs of one workload: the template's prior says where to begin, measurements where to go on.

The prior (cycles counted from registers, vector widths and remainders) ranks a space of some thousand schedules well
enough that the best is among its first few dozen, but not well enough to name it. So the search is a local one: a batch
takes half of its candidates from the neighbours of the best so far (one knob moved by one step), the other half from
the best that the prior has left, and the best itself once more, as a yardstick measured at the same time as the rest.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target

BETTER = 0.99  # of the best time: what a candidate must reach to be called better; less is noise
WORTH_TRYING = 1.6  # times the fewest predicted cycles: what the prior may be wrong by


class KnobSearch:
    """Knobs proposed, times told. Times are seconds; None for a candidate that failed.

    seeds: knobs to begin with, beside the default (the best of a similar workload, say); illegal ones are ignored.
    tried: what earlier sessions measured. patience: batches in a row that find nothing better, until the search ends.
    """

    def __init__(
        self,
        workload: Workload,
        target: Target,
        seeds: Sequence[Any] = (),
        tried: Mapping[Any, float | None] = {},
        patience: int = 2,
    ):
        self.patience = patience
        template = TEMPLATES[workload.operator]
        self.default = template.default(workload, target)
        self._cycles = {knobs: template.cycles(workload, target, knobs) for knobs in template.space(workload, target)}
        self.seeds = [knobs for knobs in dict.fromkeys([self.default, *seeds]) if knobs in self._cycles]
        self.tried = {knobs: seconds for knobs, seconds in tried.items() if knobs in self._cycles}
        measured = {knobs: seconds for knobs, seconds in self.tried.items() if seconds is not None}
        self.best: Any = min(measured, key=measured.__getitem__, default=None)
        self.idle = 0  # batches since the last improvement
        self.gain = 1.0  # of the last batch that improved: 1 - new time / old time; 1 before anything is known

    @property
    def seconds(self) -> float | None:
        """Of the best candidate."""
        return None if self.best is None else self.tried[self.best]

    @property
    def promise(self) -> float:
        """The share of its time that another batch may save: halved with each batch that does not."""
        return 0.0 if self.finished else min(self.gain, 0.3) / 2**self.idle

    @property
    def finished(self) -> bool:
        return self.idle >= self.patience or next(self._by_prior(), None) is None

    def propose(self, count: int) -> list[Any]:
        """Up to ``count`` candidates that were not tried yet; none once the space is exhausted."""
        chosen = dict.fromkeys(knobs for knobs in self.seeds if knobs not in self.tried)
        if self.best is not None:
            near = [knobs for knobs in self._neighbours(self.best) if knobs not in self.tried and knobs not in chosen]
            chosen |= dict.fromkeys(near[: max(1, (count - len(chosen)) // 2)])
        for knobs in self._by_prior():
            if len(chosen) >= count:
                break
            chosen.setdefault(knobs)
        return list(chosen)[:count]

    def tell(self, times: Mapping[Any, float | None]) -> None:
        """Times of one batch, measured together: where the best so far is among them, its new time is what counts."""
        before = times.get(self.best) or self.seconds
        self.tried |= times
        good = {knobs: seconds for knobs, seconds in times.items() if seconds is not None}
        best = min(good, key=good.__getitem__, default=None)
        if best is None:
            self.idle += 1
        elif before is None:
            self.best = best  # of the first batch
        elif good[best] < before * BETTER:
            self.gain, self.idle, self.best = 1 - good[best] / before, 0, best
        else:
            self.idle += 1

    def _by_prior(self) -> Iterator[Any]:
        """What is left and worth trying, the most promising first; of knobs that the prior cannot tell apart, at first
        only those that are most like the best so far."""
        seen: set[float] = set()
        later = []
        for knobs in self._ranked:
            if knobs in self.tried:
                seen.add(self._cycles[knobs])
                continue
            if self._cycles[knobs] in seen:
                later.append(knobs)
                continue
            seen.add(self._cycles[knobs])
            yield knobs
        yield from later

    @cached_property
    def _ranked(self) -> list[Any]:
        limit = min(self._cycles.values()) * WORTH_TRYING
        worth = [knobs for knobs, cycles in self._cycles.items() if cycles <= limit]
        return sorted(worth, key=lambda knobs: (self._cycles[knobs], _difference(knobs, self.default)))

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


def _values(knobs: Any) -> dict[str, Any]:
    return {field.name: getattr(knobs, field.name) for field in dataclasses.fields(knobs)}


def _rest(knobs: Any, without: str) -> tuple:
    return tuple(value for name, value in _values(knobs).items() if name != without)


def _difference(a: Any, b: Any) -> int:
    return sum(x != y for x, y in zip(_values(a).values(), _values(b).values(), strict=True))
