"""The configurations whose losses are measured, as programs of a simulation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from qcompile.plan import QuantPlan
from qcompile.simulate.program import Program
from qcompile.simulate.simulation import BASE, PREFIX, Simulation

ALONE, UPTO, CURVATURE = "alone", "upto", "curvature"


@dataclass(frozen=True, slots=True)
class Configuration:
    """One thing to measure.

    kind: "alone": this group has the format, all else is float32; "upto": so have all groups before it, in order;
    "curvature": the group's float weights are disturbed, by signs of this seed.
    """

    kind: str
    group: str
    format: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """What an analysis is to measure: enough to make programs from, in any process.

    groups: name -> layers, in order. probes: disturbances of each group's weights. step: their size, in relation to the
    root mean square of the weights.
    """

    groups: Mapping[str, tuple[str, ...]]
    formats: tuple[str, ...]  # but fp32
    accumulate: bool = True
    probes: int = 0
    step: float = 0.01

    def configurations(self, simulation: Simulation) -> list[Configuration]:
        """In the order in which they are measured. A group has an entry for each format that a layer of it can have."""
        found = []
        for format in self.formats:
            plan = simulation.space.plans[format]
            can = [name for name, layers in self.groups.items() if any(has(plan, x, format) for x in layers)]
            found += [Configuration(ALONE, name, format) for name in can]
            if self.accumulate:
                found += [Configuration(UPTO, name, format) for name in can]
        for name, layers in self.groups.items():
            if any(simulation.weights(layer) for layer in layers if layer in simulation.layers):
                found += [Configuration(CURVATURE, name, "fp32", seed) for seed in range(self.probes)]
        return found

    def digest(self) -> str:
        return hashlib.blake2b(json.dumps(asdict(self)).encode(), digest_size=8).hexdigest()


def programs(wish: Wish, simulation: Simulation) -> tuple[Program, list[tuple[Configuration, Program]]]:
    """The program of the float model, and those of all configurations, to be run in this order on each sample."""
    base = simulation.program({}, area=BASE)
    found = []
    for format in wish.formats:
        together: dict[str, str] = {}
        last = base
        for configuration in wish.configurations(simulation):
            if configuration.format != format or configuration.kind == CURVATURE:
                continue
            layers = _formats(wish.groups[configuration.group], format, simulation)
            if configuration.kind == ALONE:
                program = simulation.program(layers, since=base)
            else:
                together |= layers
                program = last = simulation.program(together, area=PREFIX, since=last)
            found.append((configuration, program))
    for configuration in wish.configurations(simulation):
        if configuration.kind == CURVATURE:
            layers_of = wish.groups[configuration.group]
            changed = {c for x in layers_of if x in simulation.layers for c in simulation.weight_readers(x)}
            found.append((configuration, simulation.program({}, since=base, changed=changed)))
    return base, found


def _formats(layers: Sequence[str], format: str, simulation: Simulation) -> dict[str, str]:
    return {layer: format for layer in layers if layer in simulation.layers and format in simulation.formats(layer)}


def has(plan: QuantPlan, layer: str, format: str) -> bool:
    return layer in plan.layers and plan.layers[layer].format == format
