"""Measures configurations on samples; runs in worker processes, which load the simulation once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qcompile.analyze.configurations import CURVATURE, Configuration, Wish, programs
from qcompile.analyze.data import Sample
from qcompile.analyze.metrics import Metric, angle, squared_error
from qcompile.analyze.run import Task
from qcompile.simulate.program import Program
from qcompile.simulate.simulation import Simulation

SIGNS = np.array([-1, 1], np.float32)


@dataclass(frozen=True, slots=True)
class Groups(Task):
    """All groups of a model, on some samples."""

    wish: Wish
    metric: Metric


@dataclass(frozen=True, slots=True)
class Prepared:
    """base: of fp32. found: of each configuration, in the order in which they are to be run."""

    simulation: Simulation
    wish: Wish
    base: Program
    found: Sequence[tuple[Configuration, Program]]


def prepare(simulation: Simulation, wish: Wish) -> Prepared:
    return Prepared(simulation, wish, *programs(wish, simulation))


def measure(task: Groups) -> list[np.ndarray]:
    """For each sample the sums of each configuration, behind those of fp32 itself: float64 (1 + configurations, n).

    The sums are those of the metric, of ``squared_error`` and of ``angle``, one after the other.
    """
    key = (task.folder, task.wish.digest())
    if key not in _prepared:
        _prepared.clear()
        _prepared[key] = prepare(loaded(task.folder), task.wish)
    return measure_with(_prepared[key], task)


def measure_with(prepared: Prepared, task: Groups) -> list[np.ndarray]:
    return [_sample(prepared, task.metric, sample) for sample in task.samples]


_prepared: dict[tuple[str, str], Prepared] = {}


@lru_cache(maxsize=1)
def loaded(folder: str) -> Simulation:
    """This process's own simulation, kept until another one is asked for."""
    return Simulation(folder)


def release() -> None:
    """Gives back the memory of the simulation that this process has loaded."""
    _prepared.clear()
    loaded.cache_clear()


def _sample(prepared: Prepared, metric: Metric, sample: Sample) -> np.ndarray:
    simulation, wish, base, found = prepared.simulation, prepared.wish, prepared.base, prepared.found
    simulation.load(sample.feed)
    simulation.execute(base)
    reference = {name: values.copy() for name, values in sample.own(simulation.results(base)).items()}

    def sums(program: Program) -> np.ndarray:
        changed = sample.own(simulation.results(program))
        measures = (metric.measure, squared_error, angle)
        return np.concatenate([each(reference, changed, sample.labels) for each in measures])

    def disturbed(configuration: Configuration, program: Program) -> np.ndarray:
        """Along a direction and against it, which leaves the second order alone."""
        weights = weights_of(simulation, wish.groups[configuration.group])
        kept = [w.copy() for w in weights]
        size = step(kept, wish.step)
        total = np.zeros(())
        for sign in (1, -1):
            rng = np.random.default_rng(configuration.seed)
            for w, old in zip(weights, kept, strict=True):
                w[...] = old + sign * size * rng.choice(SIGNS, old.size) * (old != 0)
            simulation.execute(program)
            total = total + sums(program)
        for w, old in zip(weights, kept, strict=True):
            w[...] = old
        return total

    rows = [sums(base)]
    for configuration, program in found:
        if configuration.kind == CURVATURE:
            rows.append(disturbed(configuration, program))
        else:
            simulation.execute(program)
            rows.append(sums(program))
    return np.stack(rows)


def weights_of(simulation: Simulation, layers: Sequence[str]) -> list[np.ndarray]:
    """The float weights of the layers that have some."""
    return [w for layer in layers if layer in simulation.layers for w in simulation.weights(layer)]


def step(weights: Sequence[np.ndarray], relative: float) -> np.float32:
    """How far each weight is moved: a part of the root mean square of those that are not zero."""
    squares, count = sum(float((w.astype(np.float64) ** 2).sum()) for w in weights), count_of(weights)
    return np.float32(relative * np.sqrt(squares / max(count, 1)))


def count_of(weights: Sequence[np.ndarray]) -> int:
    """Weights that are not zero; padding is."""
    return sum(int(np.count_nonzero(w)) for w in weights)
