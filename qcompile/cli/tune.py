"""``qcompile tune``."""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qcompile.cli.boards import RpcKey, RpcServer, RpcTracker, board_of
from qcompile.cli.console import remark, show, show_json
from qcompile.cli.mixed import chosen_formats
from qcompile.cli.options import input_shapes, names
from qcompile.cli.planning import CalibrationWish, Method, timed, uniform_plan
from qcompile.errors import QCompileError, nearest
from qcompile.formats import FORMATS
from qcompile.plan import QuantPlan
from qcompile.targets.cuda.rows import CudaTarget

if TYPE_CHECKING:
    from qcompile.model import Model
    from qcompile.rpc.places import Place
    from qcompile.targets.target import Target
    from qcompile.tune.measure import Measurer
    from qcompile.tune.session import Report, TaskProgress
    from qcompile.tune.tasks import TuningTask


class Runner(enum.Enum):
    """What measures candidates."""

    local = "local"
    rpc = "rpc"
    icount = "icount"


def tune(
    model: Annotated[Path, typer.Argument(help="The ONNX model whose layers are tuned.")],
    target: Annotated[str, typer.Option("--target", help="See 'qcompile targets'.")] = "native",
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=0, help="Candidates to measure at most; default: until no more pay."),
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option("--time-budget", metavar="60s", help="Stop after this long: 90s, 5m, 1h.")
    ] = None,
    tuning_records: Annotated[
        list[str] | None,
        typer.Option("--tuning-records", metavar="DB", help="Log to write, then others to read; default: your own."),
    ] = None,
    calib_data: Annotated[
        Path | None, typer.Option("--calib-data", help="As for build; speed does not depend on it.")
    ] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="A plan.json instead of calibration.")] = None,
    formats: Annotated[
        str, typer.Option("--formats", metavar="int8,fp32", help="Measure every layer in each of these.")
    ] = "int8",
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", metavar="list|a,b", help="'list' shows the tasks; names of layers tune theirs only."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Trials that the log has already count towards --trials.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Search also what the log calls finished.")] = False,
    runner: Annotated[
        Runner | None,
        typer.Option("--runner", help="Time here or over RPC, or count the instructions of ARM code under QEMU."),
    ] = None,
    rpc: RpcServer = None,
    rpc_tracker: RpcTracker = None,
    rpc_key: RpcKey = None,
    shapes: Annotated[
        list[str] | None, typer.Option("--input-shapes", metavar="x:[1,3,8,8]", help="Fix inputs; repeatable.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude-nodes", metavar="a,b", help="As for build.")] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads that kernels are split for.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Result for machines.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tracebacks of defects.")] = False,
) -> None:
    """Find fast schedules for a model's layers by measuring, and keep them in a log.

    Builds find them there: the next 'qcompile build' of this or any model with such layers is faster. Every trial is
    in the log as soon as it is measured; an interrupted session goes on where it was.

    --runner icount needs no ARM machine: the instructions that a candidate executes are counted under QEMU. All count
    alike, so a count is a hint where a time is a fact: schedules that were timed go before those that were counted.

    \b
    Examples:
      qcompile tune model.onnx --time-budget 60s
      qcompile tune model.onnx --tasks list
      qcompile tune model.onnx --trials 400 --tuning-records team.db --plan out/plan.json
      qcompile tune model.onnx --formats int8,fp32 --threads 2
      qcompile tune model.onnx --target neoverse-n1 --runner icount --trials 400
      qcompile tune model.onnx --target cortex-a76 --rpc 10.0.0.5:9090
      qcompile tune model.onnx --target cuda:sm_90 --tuning-records gpu.db
      qcompile tune model.onnx --rpc-tracker 10.0.0.1:9190 --rpc-key epyc --tuning-records epyc.db
    """
    import qcompile as qc
    from qcompile.report.tuning import as_json as outcome_json
    from qcompile.report.tuning import progress_table, summary
    from qcompile.targets.select import select_row
    from qcompile.tune.lookup import DEFAULT_RECORDS
    from qcompile.tune.run import check_logs
    from qcompile.tune.run import tune as run
    from qcompile.tune.session import Budget
    from qcompile.tune.tasks import merged, selected, tasks_of

    budget = Budget(trials, seconds(time_budget), resume)
    wanted = formats_of(formats)
    board = board_of(rpc, rpc_tracker, rpc_key)
    chosen_runner = runner_of(runner, board)
    row = select_row(target).with_threads(threads)
    wanted = chosen_formats(row, wanted)
    records = names(tuning_records or []) or DEFAULT_RECORDS
    check_logs(records)
    only = names(tasks or [])
    listing = only == ("list",)
    if isinstance(row, CudaTarget):
        row = _one_gpu(row, chosen_runner, board, listing)
    times: dict[str, float] = {}
    with contextlib.nullcontext() if listing else _measurer(chosen_runner, row, board) as measurer:
        with timed("import", times, "importing the model"):
            imported = qc.import_onnx(model, input_shapes(shapes or []))
        plans = _plans(imported, row, wanted, plan, calib_data, names(exclude or []), times)
        chosen = merged(tasks_of(imported, each, row) for each in plans)
        if only and not listing:
            chosen = selected(chosen, only)
        if not chosen:
            raise QCompileError("no layer has a schedule to tune", node=str(model), remedy="nothing needs to be done")
        if listing:
            states = _states(chosen, row, records, chosen_runner)
            show_json(_listed(states)) if as_json else show(progress_table(states))
            return
        with _progress(budget) as report:
            outcome = run(
                chosen, row, tuning_records=records, budget=budget, again=again, measurer=measurer, report=report
            )
    if as_json:
        show_json(outcome_json(outcome))
        return
    show(progress_table(outcome.tasks))
    for line in summary(outcome):
        show(line)


def seconds(text: str | None) -> float | None:
    """ "90s", "5m", "1h" or "90" in seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|)\s*", text)
    if match is None:
        raise QCompileError(f"'{text}' is not a time", node="--time-budget", remedy="write 90s, 5m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[match[2]]


def formats_of(text: str) -> tuple[str, ...]:
    known = list(FORMATS)
    chosen = names([text])
    for name in chosen:
        if name not in known:
            raise QCompileError(f"unknown format '{name}'", node="--formats", remedy=nearest(name, known))
    if not chosen:
        raise QCompileError("no format", node="--formats", remedy=f"give some of {', '.join(known)}")
    return tuple(dict.fromkeys(chosen))


def _plans(
    model: Model,
    target: Target | CudaTarget,
    formats: Sequence[str],
    plan: Path | None,
    data: Path | None,
    exclude: tuple[str, ...],
    times: dict[str, float],
) -> list[QuantPlan]:
    """One a format. Without data, calibration runs on noise: what is tuned are shapes and formats, not scales."""
    import qcompile as qc

    plans, cpu = [], None if isinstance(target, CudaTarget) else target
    for name in formats:
        if not FORMATS[name].codes:
            plans.append(qc.plan_uniform(model, None, name, cpu, exclude))
        elif plan is not None:
            plans.append(QuantPlan.load(plan))
        else:
            samples = None if data is not None else 1
            wish = CalibrationWish(data, Method.minmax.value, None, samples, exclude, False, name, shapes_only=True)
            plans.append(uniform_plan(model, cpu, wish, times))
    return plans


def _states(
    tasks: Sequence[TuningTask], target: Target | CudaTarget, records: Any, runner: Runner
) -> list[TaskProgress]:
    """What the logs know of the tasks; nothing is created."""
    from qcompile.tune.log import TuningLog
    from qcompile.tune.record import INSTRUCTIONS, SECONDS
    from qcompile.tune.run import logs_to_tune
    from qcompile.tune.session import open_tasks

    path, *others = logs_to_tune(records)
    log = TuningLog.open(path, read_only=True) if path.exists() else None
    unit = INSTRUCTIONS if runner is Runner.icount else SECONDS
    return open_tasks(tasks, target, log, elsewhere=[TuningLog.open(p, read_only=True) for p in others], unit=unit)


def _listed(states: Sequence[TaskProgress]) -> list[dict[str, Any]]:
    from qcompile.report.tuning import task_json

    return [task_json(state) for state in states]


def runner_of(wish: Runner | None, board: Place | None) -> Runner:
    """What measures: as wished, else a board if one is named."""
    runner = wish or (Runner.rpc if board is not None else Runner.local)
    if runner is Runner.rpc and board is None:
        raise QCompileError(
            "needs to know the machine",
            node="--runner rpc",
            remedy="give --rpc HOST:PORT, or --rpc-tracker HOST:PORT --rpc-key KEY",
        )
    if runner is not Runner.rpc and board is not None:
        raise QCompileError(
            "a machine to measure on is named, too", node=f"--runner {runner.value}", remedy="leave one of them out"
        )
    return runner


def _one_gpu(target: CudaTarget, runner: Runner, board: Place | None, listing: bool) -> CudaTarget:
    """The target for one architecture: the one that is named, or that of the GPU that measures."""
    if runner is Runner.icount:
        raise QCompileError("instructions are counted of ARM code only", node="--runner icount", remedy="leave it out")
    if listing and len(target.architectures) > 1:
        known = ", ".join(target.architectures)
        raise QCompileError(f"each of {known} has tasks of its own", remedy=f"name one: --target cuda:{known[-5:]}")
    if listing:
        return target
    from qcompile.rpc.places import Here
    from qcompile.tune.gpu import gpu_at, row_for

    try:
        return row_for(target, gpu_at(board or Here()))
    except QCompileError as error:
        if board is not None or error.node is not None:
            raise
        remedy = "tune on a machine that has one, or over RPC: --rpc HOST:PORT"
        raise QCompileError(error.reason, node="--runner local", remedy=remedy) from None


@contextlib.contextmanager
def _measurer(runner: Runner, target: Target | CudaTarget, board: Place | None) -> Iterator[Measurer | None]:
    """None for this machine's CPU, which begins only if there is something to measure."""
    if isinstance(target, CudaTarget):
        from qcompile.rpc.places import Here
        from qcompile.tune.gpu import GpuMeasurer

        with GpuMeasurer(target, board or Here()) as timing:
            yield timing
    elif runner is Runner.local:
        from qcompile.tune.local import check_here

        check_here(target)
        yield None
    elif runner is Runner.icount:
        from qcompile.tune.counted import CountingMeasurer

        with CountingMeasurer(target) as counting:
            yield counting
    else:
        from qcompile.tune.timed import TimingMeasurer

        assert board is not None, "see runner_of"
        with TimingMeasurer(target, board) as timing:
            yield timing


@contextlib.contextmanager
def _progress(budget: Any) -> Iterator[Report]:
    """On a terminal, the table of tasks as it changes, with what is left; else a line now and then."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from qcompile.report.tuning import progress_table

    def line(states: Sequence[TaskProgress], passed: float) -> str:
        trials = sum(state.trials for state in states)
        done = sum(state.done for state in states)
        return f"{done} of {len(states)} tasks, {trials} trials, {passed:.0f} s{left(budget, trials, passed)}"

    console = Console(stderr=True)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:

            def redraw(states: Sequence[TaskProgress], passed: float) -> None:
                live.update(Group(Text(line(states, passed)), progress_table(states)))  # a low terminal cuts the table

            yield redraw
        return
    last = [0.0]

    def say(states: Sequence[TaskProgress], passed: float) -> None:
        if passed - last[0] >= 15:
            last[0] = passed
            remark(f"tuning: {line(states, passed)}")

    yield say


def left(budget: Any, trials: int, passed: float) -> str:
    """ ", at most 40 s left" by whichever budget ends first; "" without one."""
    ends = []
    if budget.seconds is not None:
        ends.append(budget.seconds - passed)
    if budget.trials is not None and trials:
        ends.append((budget.trials - trials) * passed / trials)
    return f", at most {max(0.0, min(ends)):.0f} s left" if ends else ""
