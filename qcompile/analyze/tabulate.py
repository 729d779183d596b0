"""From sums over samples to a ``SensitivityTable``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcompile.analyze.configurations import ALONE, CURVATURE, UPTO, Configuration, Wish
from qcompile.analyze.measure import count_of, step, weights_of
from qcompile.analyze.metrics import Metric, decibels, mean, mean_ratio
from qcompile.analyze.weight_error import weight_error
from qcompile.assign.flow import find_casts, find_passive, find_reads, find_residuals, find_sources
from qcompile.assign.structure import Structure
from qcompile.assign.table import FLOAT, Entry, Format, Group, SensitivityTable, Uniform
from qcompile.assign.ties import Tie
from qcompile.formats import FORMATS
from qcompile.model import Model
from qcompile.passes.chain import WEIGHTED
from qcompile.passes.layer_names import layer_name
from qcompile.plan import QuantPlan
from qcompile.simulate.simulation import Simulation
from qcompile.targets.target import Target
from qcompile.tune.costs import LayerCost


@dataclass(slots=True)
class Losses:
    """What was measured. sums: of fp32 and of each configuration, see ``measure``."""

    metric: Metric
    simulation: Simulation
    wish: Wish
    sums: np.ndarray
    rows: dict[Configuration, np.ndarray] = field(init=False)
    baseline: float = field(init=False)

    def __post_init__(self) -> None:
        configurations = self.wish.configurations(self.simulation)
        self.rows = dict(zip(configurations, self.sums[1:], strict=True))
        self.baseline = self.metric.finish(self._own(self.sums[0]))

    def loss(self, kind: str, group: str, format: str) -> float | None:
        row = self.rows.get(Configuration(kind, group, format))
        return None if row is None else self.metric.loss(self._own(row), self._own(self.sums[0]))

    def scores(self, group: str, format: str) -> dict[str, float]:
        row = self.rows[Configuration(ALONE, group, format)]
        return {"sqnr": decibels(mean_ratio(self._squares(row))), "cosine": 1 - mean(row[-2:])}

    def curvature(self, group: str) -> float | None:
        """Estimate of the mean second derivative of the loss by a weight of the group: tr H / n."""
        rows = [r for c, r in self.rows.items() if c.kind == CURVATURE and c.group == group]
        weights = weights_of(self.simulation, self.wish.groups[group])
        count = count_of(weights)
        if not rows or not count:
            return None
        comparing = self.metric.relative and self.metric.name != "cosine"
        losses = [self.metric.finish(self._own(r)) if comparing else mean_ratio(self._squares(r)) for r in rows]
        return 2 * float(np.mean(losses)) / float(step(weights, self.wish.step)) ** 2 / count

    def _own(self, row: np.ndarray) -> np.ndarray:
        return row[: row.size - 2 - self._outputs()]

    def _squares(self, row: np.ndarray) -> np.ndarray:
        return row[row.size - 2 - self._outputs() : -2]

    def _outputs(self) -> int:
        return 2 * sum(spec.dtype.startswith("float") for spec in self.simulation.outputs)


def tabulate(
    model: Model,
    plans: Mapping[str, QuantPlan],
    structure: Structure,
    ties: Sequence[Tie],
    losses: Losses,
    costs: Sequence[LayerCost],
    target: Target,
    samples: int,
) -> SensitivityTable:
    """costs: of every layer in each format."""
    nodes = {name: layer.node for name, layer in model.layers.items()}
    node_of = {chain.name: layer_name(chain.anchor.name, nodes) for chain in structure.chains}
    by_layer = {(cost.layer, cost.format): cost for cost in costs}
    planned = {name: plan for name, plan in plans.items() if name != FLOAT}
    writer = _Groups(structure, planned, losses, by_layer, node_of)
    groups = tuple(writer.group(tie) for tie in ties)
    in_groups = {node_of[layer] for tie in ties for layer in tie.layers if layer in node_of}
    float_bytes = sum(group.entries[FLOAT].bytes for group in groups)
    whole = losses.simulation.constant_bytes
    last = {name: [tie.name for tie in ties if losses.loss(UPTO, tie.name, name) is not None] for name in planned}
    uniform = {FLOAT: Uniform(0.0, None, whole)}
    for name, together in last.items():
        if together:
            size = sum(group.entries.get(name, group.entries[FLOAT]).bytes for group in groups)
            uniform[name] = Uniform(losses.loss(UPTO, together[-1], name), None, max(0, whole - float_bytes) + size)
    return SensitivityTable(
        model=model.source,
        model_sha256=model.source_sha256,
        target=target.name,
        metric=losses.metric.name,
        samples=samples,
        formats=(_format(FLOAT), *(_format(name) for name in planned)),
        groups=groups,
        casts=tuple(find_casts(structure, ties, planned)),
        threads=target.threads,
        baseline=0.0 if losses.metric.relative else losses.baseline,
        rest_seconds=sum(c.seconds for c in costs if c.format == FLOAT and c.layer not in in_groups),
        rest_bytes=max(0, whole - float_bytes),
        uniform=uniform,
        plans=planned,
        reads=find_reads(structure, planned),
        residuals=find_residuals(structure, planned),
        passive=find_passive(structure),
        sources=find_sources(structure, ties),
        notes=model.notes,
    )


def _format(name: str) -> Format:
    codes = FORMATS[name].codes
    return Format(name, "uint8" if codes else "float32", 1 if codes else 4)


@dataclass(frozen=True, slots=True)
class _Groups:
    structure: Structure
    plans: Mapping[str, QuantPlan]
    losses: Losses
    costs: Mapping[tuple[str, str], LayerCost]
    node_of: Mapping[str, str]

    def group(self, tie: Tie) -> Group:
        entries, missing = {FLOAT: self._entry(tie, FLOAT, dict.fromkeys(tie.layers, FLOAT))}, {}
        for name, plan in self.plans.items():
            formats = {layer: plan.layers[layer].format for layer in tie.layers if layer in plan.layers}
            if self.losses.loss(ALONE, tie.name, name) is not None:
                entries[name] = self._entry(tie, name, formats)
            else:
                reasons = dict.fromkeys(plan.layers[layer].why for layer in formats)
                missing[name] = "; ".join(reason for reason in reasons if reason) or f"no {name} form"
        return Group(tie.name, tie.layers, entries, tie.why, missing)

    def _entry(self, tie: Tie, name: str, formats: Mapping[str, str]) -> Entry:
        costs = [self._cost(layer, formats.get(layer, FLOAT)) for layer in tie.layers]
        known = [cost for cost in costs if cost is not None]
        seconds, measured = sum(cost.seconds for cost in known), bool(known) and all(c.measured for c in known)
        size = sum(self.losses.simulation.weight_bytes(layer, name) for layer in self._simulated(tie))
        if name == FLOAT:
            return Entry(0.0, seconds, size, 0.0, measured)
        scores = self.losses.scores(tie.name, name)
        curvature, error = self.losses.curvature(tie.name), self._weight_error(tie, name)
        if curvature is not None:
            scores |= {"curvature": curvature, "hawq": curvature * error}
        alone = self.losses.loss(ALONE, tie.name, name)
        return Entry(alone, seconds, size, self.losses.loss(UPTO, tie.name, name), measured, scores)

    def _simulated(self, tie: Tie) -> list[str]:
        return [layer for layer in tie.layers if layer in self.losses.simulation.layers]

    def _cost(self, layer: str, format: str) -> LayerCost | None:
        node = self.node_of.get(layer, layer)
        return self.costs.get((node, format)) or self.costs.get((node, FLOAT))

    def _weight_error(self, tie: Tie, name: str) -> float:
        """Sum of squares of what the format changes of the group's weights."""
        total = 0.0
        for chain in self.structure.chains:
            if chain.name in tie.layers and chain.kind in WEIGHTED:
                total += weight_error(chain, self.plans[name])
        return total
