"""``qcompile build --precision mixed``: what it is asked for, and the way from there to a plan."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qcompile.cli.budgets import nbytes, seconds
from qcompile.cli.checks import MIXED
from qcompile.cli.console import remark
from qcompile.cli.planning import CalibrationWish, format_plans, timed, tune_plans
from qcompile.errors import QCompileError
from qcompile.formats import format_of
from qcompile.plan import QuantPlan
from qcompile.report.files import write_whole

if TYPE_CHECKING:
    from qcompile.assign.table import SensitivityTable
    from qcompile.mixed.goal import Goal
    from qcompile.mixed.mixed import MixedPlan
    from qcompile.model import Model
    from qcompile.targets.cuda.rows import CudaTarget
    from qcompile.targets.target import Target

_TIMED = 0.5  # seconds of calls of a build whose latency is limited


@dataclass(frozen=True, slots=True)
class MixedWish:
    """What the command line says of mixed precision."""

    goal: Goal
    formats: tuple[str, ...]
    data: Path | None
    metric: str | None
    table: Path | None
    workers: int


def mixed_wish(
    max_drop: str | None,
    latency: str | None,
    size: str | None,
    objective: str | None,
    formats: tuple[str, ...],
    data: Path | None,
    metric: str | None,
    table: Path | None,
    workers: int,
) -> MixedWish:
    from qcompile.mixed.goal import Goal, drop

    allowed = drop(max_drop) if max_drop is not None else None
    goal = Goal(allowed, seconds(latency), nbytes(size), objective)
    return MixedWish(goal, formats, data, metric, table, workers)


def mixed_plan(
    model: Model,
    target: Target | CudaTarget,
    calibration: CalibrationWish,
    wish: MixedWish,
    records: Sequence[str],
    trials: int | None,
    times: dict[str, float],
) -> MixedPlan:
    """The plan, and what it was measured at; the table of sensitivities is read from ``wish.table`` or left there.

    trials: measurements of schedules, of layers in every format, before anything is timed; None for no tuning.
    """
    import qcompile as qc
    from qcompile.assign.table import FLOAT
    from qcompile.mixed.mixed import halves_and_guard
    from qcompile.targets.select import cpu_only

    if calibration.integer_io:
        reason = "formats are measured with float inputs and outputs"
        raise QCompileError(reason, node="--integer-io", remedy="leave it out with --precision mixed")
    data = wish.data if wish.data is not None else calibration.data
    if data is None:
        raise QCompileError(
            "nothing to measure plans on", node="--eval-data", remedy="give samples, with labels if any"
        )
    halves, _ = halves_and_guard(model, data, wish.goal, wish.metric)
    if wish.data is None:
        remark("warning: without --eval-data plans are measured on the data that they were calibrated on")
    formats = chosen_formats(target, wish.formats)
    table: SensitivityTable | None = None
    plans: dict[str, QuantPlan] = {}
    if wish.table is not None and wish.table.is_file():
        table = qc.SensitivityTable.load(wish.table)
        there = [row.name for row in table.formats]
        remark(f"note: sensitivities from {wish.table}, of {', '.join(there)}; nothing is calibrated")
        if formats and {FLOAT, *formats} != set(there):
            reason = f"it is of {', '.join(there)}, and --formats says {', '.join(formats)}"
            raise QCompileError(reason, node=str(wish.table), remedy="leave --formats out, or name another table")
    else:
        formats = formats or target.choice
        model, plans = format_plans(model, target, formats, calibration, times)
        if trials is not None:
            tune_plans(model, [QuantPlan(), *plans.values()], cpu_only(target), records, trials, times)
    with timed("mixed", times, "mixed precision") as update:
        found = qc.plan_mixed(
            model,
            plans,
            halves.data,
            wish.goal,
            target,
            guard=wish.metric,
            table=table,
            latency=_latency(model, target, records),
            workers=wish.workers,
            threads=target.threads,
            tuning_records=list(records),
            keep=lambda table: write_whole(wish.table, table.to_json()) if wish.table is not None else None,
            progress=lambda what, samples: update(f"{what}, {samples} samples" if samples else what),
        )
    for note in halves.data.notes:
        remark(f"note: {note}")
    return found


def chosen_formats(target: Target | CudaTarget, words: Sequence[str]) -> tuple[str, ...]:
    """The formats that are meant by what a user names. Raises QCompileError for one that the target lacks."""
    names = tuple(dict.fromkeys(target.format(format_of(word).name) for word in words))
    for name in names:
        target.check(name)
    return names


def _latency(model: Model, target: Target | CudaTarget, records: Sequence[str]) -> Callable[[QuantPlan], float | None]:
    """Seconds of one call of a build of a plan, the median; None where the target's code cannot run."""

    def measured(plan: QuantPlan) -> float | None:
        import qcompile as qc
        from qcompile.bench import Contender, measure
        from qcompile.calibrate import random_data

        feed = next(iter(random_data(model.inputs, 1)))
        with tempfile.TemporaryDirectory(prefix="qcompile-mixed-") as folder:
            out = Path(folder) / "out"
            qc.build(model, plan, target, out=out, threads=target.threads, tuning_records=list(records))
            contender = Contender("qcompile", MIXED, out, target.threads, feed)
            try:
                return measure([contender], _TIMED)[contender].median
            except QCompileError:
                return None

    return measured
