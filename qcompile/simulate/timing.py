"""How long each layer takes in each format on this machine, from the kernels that a simulation has.

The whole model runs in one format, layer by layer, each timed by itself, so that caches are as in a real run: weights
come from where the layers before left them, activations from the layer that made them. Casts at the borders of layers
are executed, and timed apart. Formats take turns, and of every kernel call the fastest counts.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from qcompile.assign.table import FLOAT
from qcompile.simulate.calls import Place
from qcompile.simulate.simulation import Simulation
from qcompile.simulate.slices import own_calls

CASTS = ("quantize", "dequantize", "cast")  # operators of the calls between the formats of layers
ROUNDS = 40  # at least


@dataclass(frozen=True, slots=True)
class CastTime:
    """One cast between float32 and a format."""

    format: str
    elements: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one call. layers: by (layer, format), casts left out. rest: of what is in no layer, in float32, and of
    the call itself: copying inputs and results.
    """

    layers: Mapping[tuple[str, str], float]
    rest: float
    casts: tuple[CastTime, ...]


@dataclass(slots=True)
class _Part:
    """Consecutive rows of a program. owner: their layer, the number of a cast, or None for the rest."""

    owner: str | int | None
    run: Callable[[], object]
    best: float = float("inf")


def time_layers(simulation: Simulation, feed: Mapping[str, np.ndarray], seconds: float = 0.5) -> Times:
    """feed: one sample. seconds: of measuring, for each format; it takes ``ROUNDS`` runs at least."""
    kernels, numbers = simulation.kernels, _elements(simulation)
    runs = {name: _parts(simulation, name) for name in (FLOAT, *simulation.space.plans)}
    nothing = _Part(None, simulation.bound(np.zeros((0, kernels.width), np.int64)))
    call = _Part(None, _call(simulation, feed, nothing.run))
    simulation.load(feed)
    _measure([[nothing, call, *parts] for parts in runs.values()], seconds)
    layers: dict[tuple[str, str], float] = {}
    casts: list[CastTime] = []
    rest = call.best
    for name, parts in runs.items():
        layers.update(((layer, name), 0.0) for layer in simulation.layers if name in simulation.formats(layer))
        for part in parts:
            own = max(part.best - nothing.best, 0.0)
            if isinstance(part.owner, int):
                cast = kernels.calls[part.owner]
                ends = (*cast.args, *(Place("buffer", result) for result in cast.results))
                known = [numbers[end] for end in ends if end in numbers]
                casts += [CastTime(name, elements, own) for elements in known[:1]]
            elif part.owner is not None:
                layers[part.owner, name] += own
            elif name == FLOAT:
                rest += own
    return Times(layers, rest, tuple(casts))


def _parts(simulation: Simulation, format: str) -> list[_Part]:
    """The run of a whole model in a format, in parts that belong to one layer each."""
    program, kernels, variants = simulation.uniform_program(format), simulation.kernels, simulation.description.variants
    layer_of = {
        call: layer
        for layer in simulation.layers
        if format in simulation.formats(layer)
        for call in own_calls(kernels, variants, layer, format)
    }
    owners = [i if kernels.calls[i].op in CASTS else layer_of.get(i) for i in program.calls]
    parts, start = [], 0
    for owner, rows in itertools.groupby(owners):
        end = start + len(list(rows))
        parts.append(_Part(owner, simulation.bound(program.rows[start:end])))
        start = end
    return parts


def _call(simulation: Simulation, feed: Mapping[str, np.ndarray], run: Callable[[], object]) -> Callable[[], object]:
    """What ``Runner.run`` does besides the kernels."""
    results = simulation.results(simulation.uniform_program(FLOAT))
    copies = [(view, feed[spec.name]) for spec, view in zip(simulation.inputs, simulation.input_views(), strict=True)]

    def call() -> object:
        for view, values in copies:
            view[...] = values
        run()
        return {name: view.copy() for name, view in results.items()}

    return call


def _measure(runs: Sequence[Sequence[_Part]], seconds: float) -> None:
    """Keeps the fastest time of each part; the runs take turns."""
    clock = time.perf_counter
    collecting = gc.isenabled()
    gc.disable()
    try:
        rounds, end = 0, clock() + seconds * len(runs)
        while rounds < ROUNDS or clock() < end:
            rounds += 1
            for part in itertools.chain.from_iterable(runs):
                begin = clock()
                part.run()
                part.best = min(part.best, clock() - begin)
    finally:
        if collecting:
            gc.enable()


def _elements(simulation: Simulation) -> dict[Place, int]:
    """How many numbers each model input and each layer's result has."""
    kernels = simulation.kernels
    found = {Place("input", i): prod(spec.shape) for i, spec in enumerate(simulation.inputs)}
    for layer, i in kernels.choices.items():
        places = (Place("choice", i), *kernels.options[i])
        found |= dict.fromkeys(places, prod(simulation.description.storages[layer].shape))
    return found
