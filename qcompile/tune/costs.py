"""What layers cost in each format: measured where a tuning log has them, else predicted, and marked as such."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from tvm import relax
from tvm.ir import IRModule, TupleType

from qcompile import graph
from qcompile.layers import describe_layers
from qcompile.model import Model
from qcompile.passes.base import op_name
from qcompile.passes.layer_names import layer_name
from qcompile.passes.lower_layers import kernel_notes
from qcompile.passes.pipeline import form_passes, lowering_passes, run_passes
from qcompile.plan import QuantPlan
from qcompile.targets.kernels.templates import TEMPLATES, instructions
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.select import select_target
from qcompile.targets.target import Target
from qcompile.tune.log import TuningLog
from qcompile.tune.lookup import DEFAULT_RECORDS, LoggedSchedules, known_workload, open_logs, task_key, usable_knobs

CLOCK = 4e9  # cycles a second, assumed where no record tells how long a predicted cycle takes
BANDWIDTH = 80e9  # bytes a second, read and written together; kernels without weights reach 20 to 200e9 on Zen 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one call. measured: by a record of exactly this workload. basis: where the number is from."""

    seconds: float
    measured: bool
    basis: str


@dataclass(frozen=True, slots=True)
class LayerCost:
    """A layer (ONNX node) in one format, all its kernels together; measured only if each of them is."""

    layer: str
    format: str
    seconds: float
    measured: bool
    basis: str


class LoggedCosts:
    """Costs of workloads by the records of ``logs`` in seconds, first hit first; counted instructions say nothing here.

    device: CPU model whose times are wanted; without, or where there are none, those of the last one measured.
    """

    def __init__(self, logs: Sequence[TuningLog], target: Target, device: str = ""):
        self._logs, self._target, self._device = logs, target, device
        self._schedules = LoggedSchedules(logs, target)
        self._ratios: dict[tuple[str, str, int], tuple[float, int]] = {}

    def __call__(self, workload: Workload) -> Cost:
        """The fastest schedule that was measured for it; what the knobs that a build would take promise, otherwise."""
        key = task_key(workload, self._target)
        for log in self._logs:
            best = log.best(*key, self._device)
            if best is not None:
                return Cost(best.minimum, True, f"measured on {best.device}")
        for log in self._logs:
            for best in log.other_batches(*key, self._device):
                old = Workload.from_key(best.workload, best.batch)
                return Cost(best.minimum * workload.macs / old.macs, False, f"measured at batch {best.batch}")
        template = TEMPLATES[workload.operator]
        knobs = self._schedules(workload).knobs or template.default(workload, self._target)
        ratio, records = self._seconds_per_cycle(workload)
        seconds = template.cycles(workload, self._target, knobs) * ratio
        basis = f"predicted, scaled by {records} measured" if records else "predicted"
        return Cost(max(seconds, workload.weight_bytes / BANDWIDTH), False, basis)

    def _seconds_per_cycle(self, workload: Workload) -> tuple[float, int]:
        """Of the prior's cycles, the median over the records of the same operator, format and threads; their number."""
        kind = (workload.operator, workload.format, workload.threads)
        if kind not in self._ratios:
            ratios = self._measured_ratios(workload)
            self._ratios[kind] = (statistics.median(ratios) if ratios else 1 / CLOCK), len(ratios)
        return self._ratios[kind]

    def _measured_ratios(self, like: Workload) -> list[float]:
        template, ratios = TEMPLATES[like.operator], []
        for log in self._logs:
            for record in log.same_operator(
                like.operator, instructions(like, self._target), template.version, device=self._device
            ):
                workload = known_workload(record)
                if workload and (workload.format, workload.threads) == (like.format, like.threads):
                    knobs = usable_knobs(record.knobs, workload, self._target)
                    if knobs is not None:
                        ratios.append(record.minimum / template.cycles(workload, self._target, knobs))
        return ratios


def layer_costs(
    model: Model,
    plans: Mapping[str, QuantPlan],
    target: str | Target = "native",
    *,
    threads: int = 1,
    tuning_records: str | Path | Sequence[str | Path] = DEFAULT_RECORDS,
    device: str = "",
) -> list[LayerCost]:
    """The time of every layer in each format that it can take, in order of execution.

    plans: by format ("int8", "fp32"), one that puts every layer into it that has such a form; a layer that stays in
    another format gets no row. tuning_records: as for ``build``. device: CPU model whose times are wanted.

    Kernels without weights, and moves between layouts, count by the bytes that they read and write. A layer that is
    computed within another's kernel has no row. Where the formats of two neighbours differ, casts come on top.
    """
    row = (select_target(target) if isinstance(target, str) else target).with_threads(threads)
    with open_logs(tuning_records) as logs:
        cost_of = LoggedCosts(logs, row, device)
        return [cost for name, plan in plans.items() for cost in _costs(model, plan, name, row, cost_of)]


def _costs(model: Model, plan: QuantPlan, name: str, target: Target, cost_of: LoggedCosts) -> list[LayerCost]:
    integer = run_passes(model.module, form_passes(plan, model.layers))
    lowered = run_passes(integer, lowering_passes(target))
    nodes = {tensor: layer.node for tensor, layer in model.layers.items()}
    kernels = _kernel_costs(lowered, nodes, cost_of)
    rows = []
    for layer in describe_layers(model, plan, integer, kernel_notes(lowered)):
        costs = kernels.pop(layer.name, [])
        if costs and layer.format == name:
            basis = ", ".join(dict.fromkeys(cost.basis for cost in costs))
            rows.append(
                LayerCost(layer.name, name, sum(c.seconds for c in costs), all(c.measured for c in costs), basis)
            )
    return rows


def _kernel_costs(lowered: IRModule, nodes: Mapping[str, str], cost_of: LoggedCosts) -> dict[str, list[Cost]]:
    """By layer, each of its kernels. nodes: ONNX node by tensor."""
    notes = {note.output: note for note in kernel_notes(lowered)}
    costs: dict[str, list[Cost]] = defaultdict(list)
    for var, value in graph.read(lowered).bindings:
        if op_name(value) != "call_tir":
            continue
        note = notes.get(var.name)
        if note and note.schedule:
            cost = cost_of(Workload.from_key(note.schedule.workload, note.schedule.batch))
        else:
            tensors = [*value.args[1].fields, var]
            cost = Cost(sum(map(_nbytes, tensors)) / BANDWIDTH, False, "predicted from bytes")
        costs[layer_name(note.layer if note else var.name, nodes)].append(cost)
    return costs


def _nbytes(tensor: relax.Expr) -> int:
    types = tensor.ty.fields if isinstance(tensor.ty, TupleType) else [tensor.ty]
    return sum(prod(int(e) for e in ty.shape) * np.dtype(str(ty.dtype)).itemsize for ty in types)
