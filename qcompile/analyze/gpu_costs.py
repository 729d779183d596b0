"""What layers cost on a GPU that is not at hand: the launches of a build in each format, timed by a log or a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm.ir import IRModule

from qcompile.analyze.costs import Costs, Seconds
from qcompile.assign.structure import Structure
from qcompile.assign.table import FLOAT
from qcompile.manifest import ScheduleInfo
from qcompile.model import Model
from qcompile.passes.lower_cuda import predict_launches
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.plan import QuantPlan
from qcompile.targets.cuda.architectures import architecture
from qcompile.targets.cuda.launch_time import LAUNCH
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.workload import Workload
from qcompile.tune.log import TuningLog
from qcompile.tune.lookup import LoggedSchedules, open_logs, task_key
from qcompile.tune.record import Record

_CASTS = ("quantize", "dequantize", "relayout")  # operators of launches that stand between the formats of layers


def gpu_costs(
    model: Model,
    plans: Mapping[str, QuantPlan],
    structure: Structure,
    target: CudaTarget,
    tuning_records: str | Path | Sequence[str | Path] = "none",
) -> Costs:
    """See ``targets.cuda.launch_time``; a layer all of whose kernels a log has timed is measured.

    plans: by format, without fp32. target: of several architectures the newest counts. tuning_records: as for
    ``build``.
    """
    newest = target.each()[-1]
    chains = {chain.name for chain in structure.chains}
    layers: dict[tuple[str, str], Seconds] = {}
    rest, device = 0.0, ""
    with open_logs(tuning_records) as logs:
        timer = _Timer(logs, newest)
        for name, plan in {FLOAT: QuantPlan(), **plans}.items():
            form = run_passes(model.module, form_passes(plan, model.layers))
            for output, seconds in timer.times(form).items():
                if output in chains and (name == FLOAT or plan.layers[output].format == name):
                    layers[output, name] = seconds
                elif output not in chains and name == FLOAT:
                    rest += seconds.seconds
        device = timer.device
    return Costs(layers, rest, architecture(newest.architecture).memory, LAUNCH, device)


@dataclass(slots=True)
class _Timer:
    """device: of the last record that was found."""

    logs: Sequence[TuningLog]
    target: CudaTarget
    device: str = ""

    def times(self, form: IRModule) -> dict[str, Seconds]:
        """By tensor, of all launches on the way to it, casts left out."""
        found: dict[str, list[Seconds]] = defaultdict(list)
        for note, predicted in predict_launches(form, self.target, LoggedSchedules(self.logs, self.target)):
            if note.op not in _CASTS:
                record = self._record(note.schedule) if note.schedule else None
                seconds = Seconds(predicted, False) if record is None else Seconds(record.minimum, True)
                found[note.output.partition("~")[0]].append(seconds)
        return {
            output: Seconds(sum(each.seconds for each in all_of), all(each.measured for each in all_of))
            for output, all_of in found.items()
        }

    def _record(self, schedule: ScheduleInfo) -> Record | None:
        """The fastest of exactly this workload, in the first log that has it."""
        record = next(self._records(Workload.from_key(schedule.workload, schedule.batch)), None)
        self.device = record.device if record is not None else self.device
        return record

    def _records(self, workload: Workload) -> Iterator[Record]:
        for log in self.logs:
            if (record := log.best(*task_key(workload, self.target))) is not None:
                yield record
