"""Configurations that were measured on the half that is searched on, and what was predicted of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np

from qcompile.analyze.data import EvaluationData
from qcompile.analyze.metrics import Metric
from qcompile.analyze.whole import measure_configurations
from qcompile.assign.table import FLOAT, SensitivityTable
from qcompile.assign.totals import Totals, totals
from qcompile.errors import QCompileError
from qcompile.mixed.guard import Guard
from qcompile.mixed.halves import Halves
from qcompile.mixed.interval import paired_interval
from qcompile.simulate.simulation import Simulation

Formats = Mapping[str, str]  # group -> format
Key = tuple[tuple[str, str], ...]  # the same, to look it up by


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration. name: what it is, for readers. predicted: by the table that it was chosen by.

    loss: in units of the table's metric, on the samples that the table is from; drop: of the guarded metric, on all of
    the half; expected: the drop to expect on other data, which choices are made by.
    """

    name: str
    formats: Formats
    predicted: Totals
    loss: float
    drop: float
    expected: float


@dataclass(slots=True)
class Trials:
    """Measures by simulation, each configuration once.

    metric: that of the table. samples: how many the table is from. progress: called with what is done, and the samples.
    """

    simulation: Simulation
    halves: Halves
    guard: Guard
    metric: Metric
    samples: int
    workers: int = 1
    executor: Executor | None = None
    progress: Callable[[str, int], None] = lambda what, samples: None
    done: list[Trial] = field(default_factory=list)
    baseline: float = float("nan")  # of the guarded metric, for fp32
    _rows: dict[Key, np.ndarray] = field(default_factory=dict)  # of the guarded metric, of a trial and of fp32

    def measure(self, table: SensitivityTable, candidates: Mapping[str, Formats]) -> list[Trial]:
        """The trials of ``candidates`` (name -> formats); all that are new are measured in one pass over the data."""
        known = {key_of(trial.formats): trial for trial in self.done}
        fresh: dict[Key, tuple[str, Formats]] = {}
        for name, formats in candidates.items():
            if key_of(formats) not in known:
                fresh.setdefault(key_of(formats), (name, formats))
        if fresh:
            configurations = [by_layer(self.simulation, table, formats) for _, formats in fresh.values()]
            guarded, losses = self._sums(configurations)
            self.baseline = self.guard.value(guarded[0])
            if not np.isfinite(self.baseline):
                reason = f"it is {self.baseline} for fp32 itself"
                raise QCompileError(reason, node=self.guard.name, remedy="choose another metric, or look at the data")
            base = losses[0].sum(axis=0)
            for i, (key, (name, formats)) in enumerate(fresh.items(), 1):
                loss = self.metric.loss(losses[i].sum(axis=0), base)
                drop, expected = (find(guarded[i], guarded[0]) for find in (self.guard.drop, self.guard.expected_drop))
                known[key] = Trial(name, dict(formats), totals(table, formats), loss, drop, expected)
                self.done.append(known[key])
                self._rows[key] = guarded[[i, 0]]
        return [replace(known[key_of(f)], predicted=totals(table, f)) for f in candidates.values()]

    def at_most(self, trial: Trial) -> float:
        """The upper end of the interval of a trial's drop on the half that is searched on."""
        return paired_interval(self.guard, *self._rows[key_of(trial.formats)])[1]

    def _sums(self, configurations: Sequence[Formats]) -> tuple[np.ndarray, np.ndarray]:
        what = f"measuring {len(configurations)} plans"
        guarded, losses = self._measured(configurations, self.halves.search(), [self.guard.metric, self.metric], what)
        return guarded, losses[:, : self.samples]

    def held(self, formats: Formats) -> tuple[np.ndarray, int]:
        """Rows of the guarded metric, of fp32 and of a configuration by layer, (2, batches, n), on the other half; and
        how many samples that has.
        """
        half = self.halves.held()
        (rows,) = self._measured([formats], half, [self.guard.metric], "checking on the other half")
        return rows, half.rows

    def losses(self, configurations: Sequence[Formats]) -> list[float]:
        """In units of the table's metric, of configurations by layer, on the samples that the table is from."""
        what = f"measuring {len(configurations)} pairs"
        (sums,) = self._measured(configurations, self.halves.search(self.samples), [self.metric], what)
        base = sums[0].sum(axis=0)
        return [self.metric.loss(rows.sum(axis=0), base) for rows in sums[1:]]

    def _measured(
        self, configurations: Sequence[Formats], data: EvaluationData, metrics: Sequence[Metric], what: str
    ) -> list[np.ndarray]:
        return measure_configurations(
            self.simulation,
            configurations,
            data.samples(),
            metrics,
            workers=self.workers,
            executor=self.executor,
            progress=lambda samples: self.progress(what, samples),
        )


def by_layer(simulation: Simulation, table: SensitivityTable, formats: Formats) -> dict[str, str]:
    """The formats of layers, of those that have several; fp32 for the rest."""
    return {
        layer: formats[group.name]
        for group in table.groups
        if formats.get(group.name, FLOAT) != FLOAT
        for layer in group.layers
        if layer in simulation.layers and formats[group.name] in simulation.formats(layer)
    }


def key_of(formats: Formats) -> Key:
    return tuple(sorted(formats.items()))
