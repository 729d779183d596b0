"""``tune``: layers measured on this machine or a remote one, into a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qcompile.errors import QCompileError
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.select import select_row
from qcompile.targets.target import Target
from qcompile.tune.gpu import GpuMeasurer
from qcompile.tune.local import LocalMeasurer
from qcompile.tune.locations import default_log, shipped_logs
from qcompile.tune.log import TuningLog
from qcompile.tune.lookup import DEFAULT_RECORDS, log_files
from qcompile.tune.measure import Measurer
from qcompile.tune.record import SECONDS
from qcompile.tune.session import NO_LIMIT, Budget, Outcome, Report, open_tasks, search
from qcompile.tune.tasks import TuningTask

Records = str | Path | Sequence[str | Path]


def tune(
    tasks: Sequence[TuningTask],
    target: str | Target | CudaTarget = "native",
    *,
    tuning_records: Records = DEFAULT_RECORDS,
    budget: Budget = NO_LIMIT,
    again: bool = False,
    measurer: Measurer | None = None,
    report: Report = lambda states, seconds: None,
) -> Outcome:
    """Searches schedules for ``tasks`` and writes every trial to a log; ``build`` then finds them there.

    tasks: of ``tasks_of(model, plan, target)``, made for the same target and number of threads; of a GPU's, one
    architecture.
    tuning_records: log that is written, created if it is not there, and others that are read; "default" is the user's
    own log with those that come with the package. again: search also what the log calls finished.
    measurer: what builds and times candidates; this machine if None.

    Raises ``QCompileError`` if the log cannot be written, or this machine cannot run the target's code.
    """
    row = select_row(target) if isinstance(target, str) else target
    path, *others = logs_to_tune(tuning_records)
    with TuningLog.open(path) as log:
        read = [TuningLog.open(other, read_only=True) for other in others]
        unit = measurer.unit if measurer is not None else SECONDS
        states = open_tasks(tasks, row, log, again=again, elsewhere=read, unit=unit)
        if all(state.done for state in states):
            return search(states, None, log, budget, report)
        if measurer is not None:
            return search(states, measurer, log, budget, report)
        with GpuMeasurer(row) if isinstance(row, CudaTarget) else LocalMeasurer(row) as here:
            return search(states, here, log, budget, report)


def logs_to_tune(records: Records) -> list[Path]:
    """The log to write, then those to read. Raises ``QCompileError`` for none."""
    if records in (DEFAULT_RECORDS, [DEFAULT_RECORDS]):
        return [default_log(), *shipped_logs()]
    files = log_files(records)
    if not files:
        raise QCompileError("tuning needs a log to write to", node="--tuning-records", remedy="name a file")
    return files


def check_logs(records: Records) -> None:
    """Raises ``QCompileError`` for logs that ``tune`` could not use; call it before an hour of work."""
    path, *others = logs_to_tune(records)
    for log in [*([path] if path.exists() else []), *others]:
        TuningLog.open(log, read_only=True).close()
