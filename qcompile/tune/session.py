"""One session of tuning: which task gets the next trials, what is written to the log, and when to stop.

Every task first gets one batch, those with the largest share of the model's cost before the others. After that, a batch
goes where it promises to save most: the task's share times what its last batches gained. Each measurement is in the log
before the next batch begins, so that a session may end at any moment, and the next one goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from qcompile.artifact import installed_version
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.template import knobs_json, knobs_of
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target
from qcompile.tune.costs import CLOCK
from qcompile.tune.log import TuningLog
from qcompile.tune.lookup import LoggedSchedules, task_key
from qcompile.tune.measure import Batch, Measurement, Measurer
from qcompile.tune.record import SECONDS, Record, Search, Task, now
from qcompile.tune.search import KnobSearch
from qcompile.tune.tasks import TuningTask

BATCH = 8  # candidates measured together, the best so far among them
LARGE = 0.02  # share of the model's time from which a task deserves a second look before it is given up
FOOTPRINT = 32 << 20  # bytes of weights beyond which more rotation changes nothing: no cache holds them


@dataclass(slots=True)
class TaskProgress:
    """Where a task stands. trials: of this session. known: the log had all, so no trials were needed."""

    task: TuningTask
    key: Task
    search: KnobSearch
    before: int  # trials in the log when the session began
    known: bool
    predicted: float  # cost of a call by the prior, until there is a measurement
    trials: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.known or self.search.finished

    @property
    def unit(self) -> str:
        """Of all costs."""
        return self.key.unit

    @property
    def default_cost(self) -> float | None:
        return self.search.tried.get(self.search.default)

    @property
    def model_cost(self) -> float:
        """Of all layers of the task in one run of the model, as far as is known."""
        return len(self.task.layers) * (self.search.cost or self.predicted)

    @property
    def promise(self) -> float:
        """What of the model's cost another batch may save."""
        return 0.0 if self.done else self.model_cost * self.search.promise


@dataclass(frozen=True, slots=True)
class Budget:
    """What a session may spend. resume: trials that the log has already count as spent."""

    trials: int | None = None
    seconds: float | None = None
    resume: bool = False


NO_LIMIT = Budget()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a session did. seconds: wall time. stopped: why it ended: "finished", "trials" or "time"."""

    tasks: tuple[TaskProgress, ...]
    seconds: float
    stopped: str

    @property
    def trials(self) -> int:
        return sum(task.trials for task in self.tasks)


Report = Callable[[Sequence[TaskProgress], float], None]  # states, seconds since the session began


def open_tasks(
    tasks: Sequence[TuningTask],
    target: Target | CudaTarget,
    log: TuningLog | None,
    *,
    again: bool = False,
    elsewhere: Sequence[TuningLog] = (),
    unit: str = SECONDS,
) -> list[TaskProgress]:
    """The state of each task by the log, None for an empty one. again: search also what was finished before.

    elsewhere: more logs, whose records of the same or similar workloads are where a search begins.
    unit: of what is searched for.
    """
    schedules = LoggedSchedules([*([log] if log else []), *elsewhere], target)
    predicted = [predicted_cost(task.workload, target, unit) for task in tasks]
    whole = sum(cost * len(task.layers) for cost, task in zip(predicted, tasks, strict=True))
    states = []
    for task, cost in zip(tasks, predicted, strict=True):
        workload = task.workload
        key = Task(*task_key(workload, target, unit))
        tried = _tried(workload.operator, log.trials(*astuple(key))) if log else {}
        seed = schedules(workload).knobs
        patience = 2 if cost * len(task.layers) > LARGE * whole else 1
        search = KnobSearch(workload, target, [] if seed is None else [seed], tried, patience)
        known = not again and log is not None and _is_finished(log, key, workload, target)
        states.append(TaskProgress(task, key, search, len(tried), known, cost))
    return states


def _is_finished(log: TuningLog, key: Task, workload: Workload, target: Target | CudaTarget) -> bool:
    """Whether the log has searched the task, or the same layer at another batch, if that is an outer loop alone."""
    extents = TEMPLATES[workload.operator].extents
    others = (record.batch for record in log.other_batches(*astuple(key)))
    mine = extents(workload, target)
    batches = [key.batch, *(b for b in others if extents(Workload.from_key(key.workload, b), target) == mine)]
    searches = [log.search(*astuple(replace(key, batch=batch))) for batch in batches]
    return any(found.finished for found in searches if found)


def search(
    states: Sequence[TaskProgress],
    measurer: Measurer | None,
    log: TuningLog,
    budget: Budget = NO_LIMIT,
    report: Report = lambda states, seconds: None,
) -> Outcome:
    """Measures until every search has ended or the budget is spent; the log then has every trial.

    measurer: of the tasks' unit; None if every task is done already. The order of measurements follows from what was
    measured; the log is written before the next batch begins.
    """
    begin = time.perf_counter()
    spent = sum(state.before for state in states) if budget.resume else 0
    exact = measurer is not None and measurer.exact
    footprint = 0 if exact else min(sum(state.task.weight_bytes for state in states), FOOTPRINT)
    tools = _tools(measurer.compilers if measurer else ())
    stopped = "finished"
    report(states, 0.0)
    while chosen := _next(states, measurer.workers if measurer else 1):
        left = None if budget.trials is None else budget.trials - spent
        if left is not None and left <= 0:
            stopped = "trials"
            break
        if budget.seconds is not None and time.perf_counter() - begin >= budget.seconds:
            stopped = "time"
            break
        assert measurer is not None, "tasks are left to be measured"
        batches = list(_batches(chosen, footprint, left, yardstick=not exact))
        for (state, batch), measured in zip(batches, measurer.measure_many([b for _, b in batches]), strict=True):
            new = [k for k in batch.knobs if k not in state.search.tried]
            for knobs, measurement in zip(batch.knobs, measured, strict=True):
                log.add(_record(state.key, knobs, measurement, measurer, tools, footprint))
            spent += len(new)
            _learn(state, batch.knobs, measured, len(new))
            log.set_search(_search(state))
            report(states, time.perf_counter() - begin)
    return Outcome(tuple(states), time.perf_counter() - begin, stopped)


def predicted_cost(workload: Workload, target: Target | CudaTarget, unit: str = SECONDS) -> float:
    """One call with the default schedule, by the prior; an instruction a cycle."""
    template = TEMPLATES[workload.operator]
    cycles = template.cycles(workload, target, template.default(workload, target))
    return cycles / CLOCK if unit == SECONDS else cycles


def _next(states: Sequence[TaskProgress], count: int) -> list[TaskProgress]:
    """The tasks that deserve the next batches, at most ``count``."""
    waiting = [state for state in states if not state.done]
    return sorted(waiting, key=lambda s: (s.search.best is not None, -s.promise))[:count]


def _batches(chosen: Sequence[TaskProgress], footprint: int, left: int | None, yardstick: bool) -> Any:
    for state in chosen:
        best = state.search.best if yardstick else None
        room = BATCH - (best is not None)
        knobs = state.search.propose(room if left is None else min(room, left))
        if left is not None:
            left -= len(knobs)
        if knobs:
            yield state, Batch(state.task.workload, (*([] if best is None else [best]), *knobs), footprint)


def _learn(state: TaskProgress, knobs: Sequence[Any], measured: Sequence[Measurement], new: int) -> None:
    costs = {k: m.minimum if m.costs else None for k, m in zip(knobs, measured, strict=True)}
    state.search.tell(costs)
    state.trials += new
    failures = [m.error for m in measured if m.error]
    state.failed += len(failures)
    state.errors += failures


def _tried(operator: str, records: Sequence[Record]) -> Mapping[Any, float | None]:
    """Knobs -> least cost in the log; knobs that the template does not know any more are left out."""
    tried: dict[Any, float | None] = {}
    for record in records:
        try:
            knobs = knobs_of(TEMPLATES[operator], record.knobs)
        except (ValueError, TypeError):
            continue
        costs = [c for c in (tried.get(knobs), record.minimum if record.ok else None) if c is not None]
        tried[knobs] = min(costs, default=None)
    return tried


def _record(
    key: Task, knobs: Any, measured: Measurement, measurer: Measurer, tools: tuple[tuple[str, str], ...], footprint: int
) -> Record:
    return Record(
        workload=key.workload,
        batch=key.batch,
        instructions=key.instructions,
        template=key.template,
        knobs=knobs_json(knobs),
        costs=measured.costs,
        error=measured.error,
        device=measurer.device,
        cores=measurer.cores,
        created=now(),
        tools=tools,
        footprint=footprint,
        unit=key.unit,
    )


def _search(state: TaskProgress) -> Search:
    key, trials = state.key, state.before + state.trials
    done = state.search.finished
    return Search(key.workload, key.batch, key.instructions, key.template, trials, done, now(), key.unit)


def _tools(compilers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    import tvm

    packages = (("qcompile", "qcompile"), ("tvm", "apache-tvm"))
    versions = [(name, installed_version(package)) for name, package in packages]
    return tuple(sorted([*(compilers or [("llvm", str(tvm.target.codegen.llvm_version_major()))]), *versions]))
