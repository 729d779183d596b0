"""Measures configurations on samples; runs in worker processes, which load the simulation once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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


def measure(task: Groups) -> list[np.ndarray]:
    """For each sample the sums of each configuration, behind those of fp32 itself: float64 (1 + configurations, n).

    The sums are those of the metric, of ``squared_error`` and of ``angle``, one after the other.
    """
    simulation, base, found = _prepared(task.folder, task.wish)
    return [_sample(simulation, base, found, task.wish, task.metric, sample) for sample in task.samples]


@lru_cache(maxsize=1)
def loaded(folder: str) -> Simulation:
    """This process's own simulation, kept until another one is asked for."""
    return Simulation(folder)


_programs: dict[tuple[str, str], Any] = {}


def _prepared(folder: str, wish: Wish) -> tuple[Simulation, Program, list[tuple[Configuration, Program]]]:
    key = (folder, wish.digest())
    if key not in _programs:
        _programs.clear()
        _programs[key] = programs(wish, loaded(folder))
    return loaded(folder), *_programs[key]


def release() -> None:
    """Gives back the memory of the simulation that this process has loaded."""
    _programs.clear()
    loaded.cache_clear()


def _sample(
    simulation: Simulation,
    base: Program,
    found: Sequence[tuple[Configuration, Program]],
    wish: Wish,
    metric: Metric,
    sample: Sample,
) -> np.ndarray:
    simulation.load(sample.feed)
    simulation.execute(base)
    reference = {name: values.copy() for name, values in simulation.results(base).items()}

    def sums(program: Program) -> np.ndarray:
        changed = simulation.results(program)
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
