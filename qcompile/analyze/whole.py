"""Measures whole configurations, sample by sample: plans that were assigned, and what they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from qcompile.analyze.data import Sample
from qcompile.analyze.measure import loaded, release
from qcompile.analyze.metrics import Arrays, Metric
from qcompile.analyze.run import Task, executor_of, measure_each
from qcompile.errors import QCompileError
from qcompile.simulate.program import Program
from qcompile.simulate.simulation import BASE, Simulation
from qcompile.simulate.variant import Formats


@dataclass(frozen=True, slots=True)
class _Whole(Task):
    configurations: tuple[Formats, ...]
    metrics: tuple[Metric, ...]


def measure_configurations(
    simulation: Simulation,
    configurations: Sequence[Formats],
    samples: Iterable[Sample],
    metrics: Sequence[Metric],
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Callable[[int], None] = lambda samples: None,
) -> list[np.ndarray]:
    """For each metric its sums: float64 (1 + configurations, samples, n), those of fp32 itself first.

    ``metric.finish(sums[i].sum(axis=0))`` is what configuration ``i - 1`` measures, and ``metric.loss`` of that and of
    ``sums[0].sum(axis=0)`` its loss. Rows of one sample belong together, for paired comparisons.

    configurations: layer -> format, fp32 for a layer that is not named; what equals the float run is taken from there.
    samples: read once, see ``evaluation_data``. workers, executor: as for ``analyze``; results do not depend on them.
    """
    task = _Whole(str(simulation.folder), tuple(dict(formats) for formats in configurations), tuple(metrics))
    found: list[list[np.ndarray]] = []
    try:
        with executor_of(workers, executor) as (pool, ahead):
            measure = _measure if pool is not None else partial(_measure_with, _prepare(simulation, task))
            for number, sums in measure_each(measure, task, samples, pool, ahead):
                found.append(sums)
                progress(number + 1)
    finally:
        _prepared.clear()
        release()
    if not found:
        raise QCompileError("no samples to evaluate on", remedy="give at least one")
    return [_stacked([sums[i] for sums in found]) for i in range(len(metrics))]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The programs of configurations, which take longer to write than a small model to run."""

    simulation: Simulation
    configurations: tuple[Formats, ...]
    base: Program
    programs: tuple[Program, ...]


def _prepare(simulation: Simulation, task: _Whole) -> _Prepared:
    base = simulation.program({}, area=BASE)
    programs = tuple(simulation.program(formats, since=base) for formats in task.configurations)
    return _Prepared(simulation, task.configurations, base, programs)


_prepared: dict[str, _Prepared] = {}  # of a worker, by the folder of its simulation: the last


def _measure(task: _Whole) -> list[list[np.ndarray]]:
    known = _prepared.get(task.folder)
    if known is None or known.configurations != task.configurations:
        _prepared.clear()
        known = _prepared[task.folder] = _prepare(loaded(task.folder), task)
    return _measure_with(known, task)


def _measure_with(prepared: _Prepared, task: _Whole) -> list[list[np.ndarray]]:
    """For each sample, for each metric: (1 + configurations, n)."""
    simulation, base, programs = prepared.simulation, prepared.base, prepared.programs
    rows = []
    for sample in task.samples:
        simulation.load(sample.feed)
        simulation.execute(base)
        reference = _copied(sample, simulation.results(base))
        outputs = [reference]
        for program in programs:
            simulation.execute(program)
            outputs.append(_copied(sample, simulation.results(program)))
        sums = [[metric.measure(reference, each, sample.labels) for each in outputs] for metric in task.metrics]
        rows.append([np.stack(each) for each in sums])
    return rows


def _copied(sample: Sample, outputs: Arrays) -> Arrays:
    return {name: values.copy() for name, values in sample.own(outputs).items()}


def _stacked(sums: Sequence[np.ndarray]) -> np.ndarray:
    """(1 + configurations, samples, n); what a batch that is not full has fewer of is NaN."""
    most = max(each.shape[1] for each in sums)
    return np.stack([np.pad(x, [(0, 0), (0, most - x.shape[1])], constant_values=np.nan) for x in sums], axis=1)
