"""What there is to tune in a model: its distinct workloads, and how many layers share each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qcompile.errors import QCompileError, nearest
from qcompile.layers import schedules_of
from qcompile.model import Model
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.passes.lower_layers import LowerLayers
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.passes.store_activations import StoreActivations
from qcompile.plan import QuantPlan
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target


@dataclass(frozen=True, slots=True)
class TuningTask:
    """One workload and the layers (ONNX nodes) that have it, in order of execution; a layer may be there twice."""

    workload: Workload
    layers: tuple[str, ...]

    @property
    def weight_bytes(self) -> int:
        """Of all its layers together."""
        return self.workload.weight_bytes * len(self.layers)


def tasks_of(model: Model, plan: QuantPlan, target: Target | CudaTarget) -> list[TuningTask]:
    """The tasks of ``model`` built by ``plan``, in order of execution. Layers without knobs have none.

    target: a CPU's, or a GPU's of one architecture.
    """
    integer = run_passes(model.module, form_passes(plan, model.layers))
    if isinstance(target, CudaTarget):
        schedules = [note.schedule for note in lower_cuda(integer, target=target)[1] if note.schedule]
    else:
        schedules = list(schedules_of(run_passes(integer, [StoreActivations(target), LowerLayers(target)])))
    layers: dict[Workload, list[str]] = defaultdict(list)
    for schedule in schedules:
        layers[Workload.from_key(schedule.workload, schedule.batch)].append(schedule.layer)
    return [TuningTask(workload, tuple(names)) for workload, names in layers.items()]


def merged(lists: Iterable[Sequence[TuningTask]]) -> list[TuningTask]:
    """Tasks of several builds of one model (one a format); what two have in common is there once."""
    found: dict[Workload, TuningTask] = {}
    for task in (task for tasks in lists for task in tasks):
        found.setdefault(task.workload, task)
    return list(found.values())


def selected(tasks: Sequence[TuningTask], names: Sequence[str]) -> list[TuningTask]:
    """Those that have a layer of one of ``names``. Raises ``QCompileError`` for a name that no task has."""
    known = {layer for task in tasks for layer in task.layers}
    for name in names:
        if name not in known:
            raise QCompileError(f"no task has a layer '{name}'", node="--tasks", remedy=nearest(name, sorted(known)))
    return [task for task in tasks if not set(names).isdisjoint(task.layers)]
