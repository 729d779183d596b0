"""``debug``: layer by layer, what a plan does to a model: each layer alone, and everything up to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from qcompile.analyze.metrics import decibels
from qcompile.assign.table import FLOAT
from qcompile.errors import QCompileError
from qcompile.model import Model
from qcompile.passes.layer_names import layer_name
from qcompile.plan import QuantPlan, TensorPlan
from qcompile.simulate.program import Program
from qcompile.simulate.simulate import simulate
from qcompile.simulate.simulation import BASE, PREFIX, Simulation
from qcompile.targets.target import Target


@dataclass(frozen=True, slots=True)
class LayerError:
    """Of a layer's result, against the float model's, over all samples.

    layer: name as in the plan; node: its ONNX node. alone: the layer has its format, and its inputs are exact;
    upto: so have all layers before it. sqnr: decibels. largest: absolute difference. clipped: share of the float
    model's results outside of what the codes of the layer's result reach; None if its result has no codes.
    """

    layer: str
    node: str
    format: str
    sqnr_alone: float
    sqnr_upto: float
    largest_alone: float
    largest_upto: float
    clipped: float | None


@dataclass(slots=True)
class _Sums:
    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    outside: int = 0
    count: int = 0

    def add(self, real: np.ndarray, other: np.ndarray) -> None:
        difference = other.astype(np.float64) - real
        self.signal += float((real.astype(np.float64) ** 2).sum())
        self.noise += float((difference**2).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0)))

    @property
    def sqnr(self) -> float:
        return decibels(self.noise / self.signal if self.signal else float(self.noise > 0))


def debug(
    model: Model,
    plan: QuantPlan,
    feeds: Iterable[Mapping[str, np.ndarray]],
    target: str | Target = "native",
    progress: Callable[[int], None] = lambda samples: None,
) -> list[LayerError]:
    """The errors of every layer that the plan has in another format than fp32, worst alone first.

    plan: of ``model``. feeds: at least one, in float32 where the plan has model inputs as codes.
    """
    formats = {name: layer.format for name, layer in plan.layers.items() if layer.format != FLOAT}
    if not formats:
        raise QCompileError("every layer of the plan is fp32: there is nothing to compare", remedy="build with int8")
    # The same plan for each of its formats: what it says of other layers is not asked for.
    simulation = simulate(model, dict.fromkeys(formats.values(), plan), target)
    layers = [name for name in simulation.layers if name in formats]
    base = simulation.program({}, area=BASE, layers=layers)
    alone = {name: _alone(simulation, plan, name, formats[name], base) for name in layers}
    whole = simulation.program(replace(plan, integer_inputs=(), integer_outputs=()), area=PREFIX, layers=layers)
    before, after = {name: _Sums() for name in layers}, {name: _Sums() for name in layers}
    count = 0
    for feed in feeds:
        simulation.load(feed)
        simulation.execute(base)
        simulation.execute(whole)
        for name in layers:
            real = simulation.values(base, name)
            simulation.execute(alone[name])
            before[name].add(real, simulation.values(alone[name], name))
            after[name].add(real, simulation.values(whole, name))
            before[name].outside += _outside(real, plan.tensors.get(name))
            before[name].count += real.size
        count += 1
        progress(count)
    if not count:
        raise QCompileError("no samples to compare on", remedy="give at least one")
    nodes = {name: layer.node for name, layer in model.layers.items()}
    rows = [
        LayerError(
            name,
            layer_name(name, nodes),
            formats[name],
            before[name].sqnr,
            after[name].sqnr,
            before[name].largest,
            after[name].largest,
            before[name].outside / max(before[name].count, 1) if name in plan.tensors else None,
        )
        for name in layers
    ]
    return sorted(rows, key=lambda row: row.sqnr_alone)


def _alone(simulation: Simulation, plan: QuantPlan, name: str, format: str, base: Program) -> Program:
    """The program of one layer; its result is rounded to codes where the plan stores codes."""
    own = replace(simulation.space, passive=()).plan({name: format})
    if name in plan.tensors:
        names = (name, *simulation.space.residuals.get(name, ()))
        own = replace(own, tensors={**own.tensors, **{each: plan.tensors[each] for each in names}})
    return simulation.program(own, since=base, layers=[name])


def _outside(values: np.ndarray, tensor: TensorPlan | None) -> int:
    """How many values lie more than half a step beyond the first or last code."""
    if tensor is None:
        return 0
    q = tensor.affine
    codes = values.astype(np.float64) / q.scale + q.zero_point
    return int(((codes < q.qmin - 0.5) | (codes > q.qmax + 0.5)).sum())
