"""``plan_mixed``: a plan of several formats that was measured, and what it was measured at on data kept aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qcompile.analyze.analyze import analyze
from qcompile.analyze.data import evaluation_data
from qcompile.analyze.detect import choose_metric
from qcompile.assign.assignment import Assignment, to_plan
from qcompile.assign.table import Check, SensitivityTable
from qcompile.errors import QCompileError
from qcompile.mixed.goal import Goal
from qcompile.mixed.guard import Guard, find_guard
from qcompile.mixed.halves import Halves
from qcompile.mixed.interval import CONFIDENCE, paired_interval, unseen_share
from qcompile.mixed.search import Search
from qcompile.mixed.trials import Trial, Trials, by_layer
from qcompile.model import Model
from qcompile.plan import QuantPlan
from qcompile.simulate.simulate import simulate
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.select import select_row
from qcompile.targets.target import Target
from qcompile.tune.lookup import DEFAULT_RECORDS

SAMPLES = 64  # that sensitivities are measured on
_TRIES = 3  # plans that are built and timed to meet a budget of latency
_MARGIN = 0.99  # of the budget that the next try aims at

Latency = Callable[[QuantPlan], float | None]


@dataclass(frozen=True, slots=True)
class Held:
    """The plan on the half of the data that nothing was chosen by.

    metric: the guarded one. baseline, value: of fp32 and of the plan. drop: how much worse; low, high: its bounds with
    ``confidence``. seen: of the samples, how many the table of sensitivities was made with; None if it does not say.
    """

    metric: str
    samples: int
    baseline: float
    value: float
    drop: float
    low: float
    high: float
    confidence: float = CONFIDENCE
    seen: int | None = 0


@dataclass(frozen=True, slots=True)
class MixedPlan:
    """plan: to build. assignment: of groups, with reasons. table: with the checks and pairs that were measured.

    chosen: the plan on the half that was searched on; trials: all that were measured there. held: on the other half.
    seconds: of one call of the build, measured; None where nobody could. missed: the limits that it does not keep, by
    "drop" or "latency", in words; met if there are none.
    """

    plan: QuantPlan
    assignment: Assignment
    table: SensitivityTable
    chosen: Trial
    trials: tuple[Trial, ...]
    held: Held
    goal: Goal
    seconds: float | None
    missed: Mapping[str, str]

    @property
    def unmet(self) -> tuple[str, ...]:
        """What is not kept, in words."""
        return tuple(self.missed.values())

    @property
    def met(self) -> bool:
        return not self.missed


def plan_mixed(
    model: Model,
    plans: Mapping[str, QuantPlan],
    data: Any,
    goal: Goal,
    target: str | Target | CudaTarget = "native",
    *,
    guard: str | Callable[..., Any] | None = None,
    metric: str | Callable[..., Any] | None = None,
    num_samples: int = SAMPLES,
    table: SensitivityTable | None = None,
    latency: Latency | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    threads: int = 1,
    tuning_records: str | Path | list[str] = DEFAULT_RECORDS,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    keep: Callable[[SensitivityTable], None] = lambda table: None,
    progress: Callable[[str, int], None] = lambda what, samples: None,
) -> MixedPlan:
    """The best plan for ``goal``: analyzed, assigned, measured, repaired, and checked on data that it has not seen.

    Every other sample is searched on: sensitivities are measured on the first of them, and whole plans on all, by
    simulation. Where losses of groups do not add up, those of the pairs that matter are measured and the plan is
    assigned again. The rest of the samples is for ``MixedPlan.held`` alone.

    Parameters
    ----------
    plans: by format, the plan with every layer in it that can be.
    data: as for ``analyze``; read several times, so what can be read only once is kept in memory. With labels, the
    guarded metric is that of the task.
    guard: the metric that ``goal.max_drop`` is about, see ``find_guard``. metric: of sensitivities, as for ``analyze``.
    num_samples: that sensitivities are measured on. table: sensitivities measured before (its plans are taken); if on
    samples that are held back here, ``Held.seen`` tells.
    latency: seconds of one call of a build of a plan, None for what cannot run here; asked for if there is a budget of
    latency, which is tightened until the build keeps it.
    keep: called with the table as soon as there is one, so that it is not lost if no plan is found, and in the end.
    progress: called with what is being done, and the number of samples done.

    Raises
    ------
    QCompileError: if no choice of formats keeps the budgets of latency and size; it says what is reachable. A plan that
    drops too much is no error: see ``MixedPlan.unmet``.
    """
    row = (select_row(target) if isinstance(target, str) else target).with_threads(threads)
    halves, guarded = halves_and_guard(model, data, goal, guard)
    measured = choose_metric(model, table.metric if metric is None and table is not None else metric)
    halves.data.check_rows(model.outputs, guarded.metric.own or measured.own)
    if table is not None:
        _check_table(table, model, row)
        plans = dict(table.plans)
    progress("compiling the simulation", 0)
    simulation = simulate(model, plans, row.with_threads(1), tuning_records=tuning_records)
    if table is None:
        table = analyze(
            model,
            plans,
            halves.search(num_samples),
            row,
            metric=metric,
            accumulate=False,
            workers=workers,
            executor=executor,
            checkpoint=checkpoint,
            resume=resume,
            simulation=simulation,
            threads=threads,
            tuning_records=tuning_records,
            progress=lambda samples: progress("measuring sensitivities", samples),
        )
        keep(table)
    trials = Trials(simulation, halves, guarded, measured, table.samples, workers, executor, progress)
    search = Search(table, trials, goal)
    assignment, chosen, seconds = _timed(search, goal, latency)
    held = _hold(trials, by_layer(simulation, search.table, chosen.formats), table.seen)
    checks = tuple(Check(t.name, t.formats, t.predicted.loss, t.loss) for t in trials.done)
    notes = dict.fromkeys((*search.table.notes, *halves.data.notes))
    whole = replace(search.table, checks=checks, notes=tuple(notes))
    keep(whole)
    missed = _missed(goal, chosen, held, trials.baseline, seconds)
    return MixedPlan(
        to_plan(assignment, whole), assignment, whole, chosen, tuple(trials.done), held, goal, seconds, missed
    )


def halves_and_guard(
    model: Model, data: Any, goal: Goal, guard: str | Callable[..., Any] | None
) -> tuple[Halves, Guard]:
    """What plans are measured on, and by what. Raises QCompileError if they do not go together."""
    if hasattr(data, "get_next"):
        data = iter(data.get_next, None)
    halves = Halves(evaluation_data(list(data) if isinstance(data, Iterator) else data, model.inputs))
    guarded = find_guard(guard, model, halves.first())
    if goal.max_drop is not None and guarded.metric.relative:
        goal.max_drop.check(0.0)
    return halves, guarded


def _check_table(table: SensitivityTable, model: Model, target: Target | CudaTarget) -> None:
    if table.model_sha256 and model.source_sha256 and table.model_sha256 != model.source_sha256:
        raise QCompileError("the table is of another model", node=table.model, remedy="analyze this model")
    if (table.target, table.threads) != (target.name, target.threads):
        reason = f"its times are of {table.target}, {table.threads} threads; not of {target.name}, {target.threads}"
        raise QCompileError(reason, node="table of sensitivities", remedy="analyze for this target")


def _timed(search: Search, goal: Goal, latency: Latency | None) -> tuple[Assignment, Trial, float | None]:
    """The search's result; if there is a budget of latency, one whose build keeps it, or the fastest of all tries."""
    assignment, chosen = search.run()
    if goal.max_seconds is None or latency is None:
        return assignment, chosen, None
    seconds = latency(to_plan(assignment, search.table))
    best = assignment, chosen, seconds
    limit = goal.max_seconds
    for _ in range(_TRIES - 1):
        if seconds is None or seconds <= goal.max_seconds:
            break
        limit *= _MARGIN * goal.max_seconds / seconds
        search.goal = replace(goal, max_seconds=limit)
        try:
            assignment, chosen = search.run()
        except QCompileError:
            break  # nothing is predicted to be as fast as that
        seconds = latency(to_plan(assignment, search.table))
        if seconds is not None and best[2] is not None and seconds < best[2]:
            best = assignment, chosen, seconds
    return best


def _hold(trials: Trials, formats: Mapping[str, str], seen: tuple[str, ...]) -> Held:
    guard, half, known = trials.guard, trials.halves.held(), frozenset(seen)
    met = sum(digest in known for sample in half.samples() for digest in half.digests(sample)) if seen else None
    (base, own), samples = trials.held(formats)
    low, high = paired_interval(guard, own, base)
    if guard.counts and low == high:
        low, high = low - unseen_share(samples), high + unseen_share(samples)
    values = (guard.value(base), guard.value(own), guard.drop(own, base))
    return Held(guard.name, samples, *values, low, high, seen=met)


def _missed(goal: Goal, chosen: Trial, held: Held, baseline: float, seconds: float | None) -> dict[str, str]:
    """By limit, what is not kept; a drop that is no number is not."""
    found = {}
    if goal.max_drop is not None:
        limit = f"{goal.max_drop} of {held.metric}"
        if not chosen.expected <= goal.max_drop.allowed(baseline):
            found["drop"] = f"no plan within the budgets is expected to drop by {limit} at most"
        elif not held.drop <= goal.max_drop.allowed(held.baseline):
            found["drop"] = f"it drops by more than {limit} on the half that was held back"
    if goal.max_seconds is not None and seconds is not None and seconds > goal.max_seconds:
        found["latency"] = f"its build takes {1e6 * seconds:.4g} us, the budget is {1e6 * goal.max_seconds:.4g} us"
    return found
