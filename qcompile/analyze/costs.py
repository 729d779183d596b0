"""What layers and casts cost: measured by the simulation where this machine can run it, else predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcompile.assign.structure import Structure
from qcompile.assign.table import FLOAT, Format
from qcompile.calibrate.data import Feed
from qcompile.formats import FORMATS
from qcompile.model import Model
from qcompile.passes.layer_names import layer_name
from qcompile.plan import QuantPlan
from qcompile.runtime.features import host_name
from qcompile.simulate.simulation import Simulation
from qcompile.simulate.timing import CastTime, time_layers
from qcompile.targets.target import Target
from qcompile.tune.costs import BANDWIDTH, layer_costs


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one call. measured: on the target, not predicted."""

    seconds: float
    measured: bool


@dataclass(frozen=True, slots=True)
class Costs:
    """layers: by (layer, format); one that is missing takes the time of fp32. rest: seconds of all that is in no layer.

    cast_bandwidth, cast_overhead: see ``SensitivityTable``. device: CPU model of what was measured, "" if nothing was.
    """

    layers: Mapping[tuple[str, str], Seconds]
    rest: float
    cast_bandwidth: float = BANDWIDTH
    cast_overhead: float = 0.0
    device: str = ""

    def of_format(self, format: str) -> dict[str, Seconds]:
        """By layer."""
        return {layer: seconds for (layer, own), seconds in self.layers.items() if own == format}

    def of(self, layer: str, format: str) -> Seconds | None:
        return self.layers.get((layer, format)) or self.layers.get((layer, FLOAT))


def measured_costs(simulation: Simulation, feed: Feed) -> Costs:
    """On one thread. feed: one sample."""
    times = time_layers(simulation, feed)
    bandwidth, overhead = fit_casts(times.casts) or (BANDWIDTH, 0.0)
    layers = {key: Seconds(seconds, True) for key, seconds in times.layers.items()}
    return Costs(layers, times.rest, bandwidth, overhead, host_name())


def predicted_costs(
    model: Model,
    plans: Mapping[str, QuantPlan],
    structure: Structure,
    target: Target,
    tuning_records: str | Path | Sequence[str | Path],
) -> Costs:
    """By tuning logs where they know a layer's workload, see ``layer_costs``. plans: by format, without fp32."""
    nodes = {name: layer.node for name, layer in model.layers.items()}
    layers_of: dict[str, list[str]] = {}
    for chain in structure.chains:
        layers_of.setdefault(layer_name(chain.anchor.name, nodes), []).append(chain.name)
    costs = layer_costs(
        model, {FLOAT: QuantPlan(), **plans}, target, threads=target.threads, tuning_records=tuning_records
    )
    found = {(x, c.format): Seconds(c.seconds, c.measured) for c in costs for x in layers_of.get(c.layer, ())}
    return Costs(found, sum(c.seconds for c in costs if c.format == FLOAT and c.layer not in layers_of))


def fit_casts(casts: Sequence[CastTime]) -> tuple[float, float] | None:
    """Bytes a second, read and written, and seconds that a cast takes besides: the line of the least squared error in
    relation to the size; None if there are too few.
    """
    wide = table_format(FLOAT).element_bytes
    rows = np.array(
        [(c.elements * (wide + table_format(c.format).element_bytes), c.seconds) for c in casts if c.seconds > 0]
    )
    if len(rows) < 2:
        return None
    size, seconds = rows.T
    terms = np.stack([size, np.ones_like(size)], axis=1) / size[:, None]
    slope, overhead = np.linalg.lstsq(terms, seconds / size, rcond=None)[0]
    if overhead < 0 or slope <= 0:
        slope, overhead = float(np.median(seconds / size)), 0.0
    return float(1 / slope), float(overhead)


def table_format(name: str) -> Format:
    """A format as the table has it."""
    row = FORMATS[name]
    return Format(name, row.activations, row.activation_bytes)
