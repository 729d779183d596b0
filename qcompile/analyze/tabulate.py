"""From sums over samples to a ``SensitivityTable``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qcompile.analyze.configurations import ALONE, CURVATURE, UPTO, Configuration, Wish
from qcompile.analyze.costs import Costs, table_format
from qcompile.analyze.measure import count_of, step, weights_of
from qcompile.analyze.metrics import Metric, decibels, mean, mean_ratio
from qcompile.analyze.weight_error import weight_error
from qcompile.assign.flow import find_casts, find_passive, find_reads, find_residuals, find_sources
from qcompile.assign.structure import Structure
from qcompile.assign.table import FLOAT, Entry, Group, SensitivityTable, Uniform
from qcompile.assign.ties import Tie
from qcompile.assign.totals import totals, uniform_formats
from qcompile.model import Model
from qcompile.plan import QuantPlan
from qcompile.simulate.simulation import Simulation
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.target import Target


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
    costs: Costs,
    target: Target | CudaTarget,
    samples: int,
) -> SensitivityTable:
    planned = {name: plan for name, plan in plans.items() if name != FLOAT}
    writer = _Groups(structure, planned, losses, costs)
    groups = tuple(writer.group(tie) for tie in ties)
    in_groups = {layer for tie in ties for layer in tie.layers}
    float_bytes = sum(group.entries[FLOAT].bytes for group in groups)
    whole = losses.simulation.constant_bytes
    table = SensitivityTable(
        model=model.source,
        model_sha256=model.source_sha256,
        target=target.name,
        metric=losses.metric.name,
        samples=samples,
        formats=(table_format(FLOAT), *(table_format(name) for name in planned)),
        groups=groups,
        casts=tuple(find_casts(structure, ties, planned)),
        threads=target.threads,
        baseline=0.0 if losses.metric.relative else losses.baseline,
        device=costs.device,
        rest_seconds=costs.rest + sum(s.seconds for x, s in costs.of_format(FLOAT).items() if x not in in_groups),
        rest_bytes=max(0, whole - float_bytes),
        cast_bandwidth=costs.cast_bandwidth,
        cast_overhead=costs.cast_overhead,
        plans=planned,
        reads=find_reads(structure, planned),
        residuals=find_residuals(structure, planned),
        passive=find_passive(structure),
        sources=find_sources(structure, ties),
    )
    return replace(table, uniform={format.name: _uniform(table, losses, format.name) for format in table.formats})


def _uniform(table: SensitivityTable, losses: Losses, name: str) -> Uniform:
    """The whole model in one format, of what was measured."""
    formats = uniform_formats(table, name)
    whole = totals(table, formats)
    together = [losses.loss(UPTO, group.name, name) for group in table.groups if name in group.entries]
    loss = 0.0 if name == FLOAT else next((loss for loss in reversed(together) if loss is not None), None)
    measured = all(group.entries[formats[group.name]].measured for group in table.groups)
    return Uniform(loss, whole.seconds if measured else None, whole.bytes)


@dataclass(frozen=True, slots=True)
class _Groups:
    structure: Structure
    plans: Mapping[str, QuantPlan]
    losses: Losses
    costs: Costs

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
        costs = [self.costs.of(layer, formats.get(layer, FLOAT)) for layer in tie.layers]
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

    def _weight_error(self, tie: Tie, name: str) -> float:
        """Sum of squares of what the format changes of the group's weights."""
        total = 0.0
        for chain in self.structure.chains:
            if chain.name in tie.layers:
                total += weight_error(chain, self.plans[name])
        return total
