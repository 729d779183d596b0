"""What a tuning log knows, layer by layer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from qcompile.report.tables import table
from qcompile.report.tuning import cost_text
from qcompile.targets.kernels.workload import Workload
from qcompile.tune.log import TuningLog
from qcompile.tune.record import UNITS, Record, Task

_HEADERS = ["operator", "shape", "format", "instructions", "template", "batch", "threads", "trials"]
_HEADERS += ["best us", "best instructions", "vs first", "knobs", "device", "date", "search"]
_NUMBERS = ["batch", "threads", "trials", "best us", "best instructions", "vs first"]


@dataclass(frozen=True, slots=True)
class LogRow:
    """One task as one CPU measured it.

    best: None if every trial failed. first: the first trial that did not fail; a search begins with the default
    schedule. finished: whether the search has ended; None if there is none.
    """

    task: Task
    operator: str
    device: str
    trials: int
    failed: int
    best: Record | None
    first: Record | None
    finished: bool | None

    @property
    def workload(self) -> Workload | None:
        """None for a layer that this version of qcompile does not know."""
        try:
            return Workload.from_key(self.task.workload, self.task.batch)
        except (ValueError, KeyError, TypeError, IndexError):
            return None

    @property
    def speedup(self) -> float | None:
        """Of the best over the first trial."""
        return self.first.minimum / self.best.minimum if self.first and self.best else None


def log_rows(log: TuningLog, wanted: Callable[[Task], bool] = lambda task: True) -> list[LogRow]:
    """One row a task and CPU, in the order of ``log.records``."""
    finished = {search.task: search.finished for search in log.searches()}
    rows: list[LogRow] = []
    for task, of_task in itertools.groupby(log.records(), key=lambda record: record.task):
        if wanted(task):
            rows += _rows(task, list(of_task), finished.get(task))
    return rows


def _rows(task: Task, records: list[Record], finished: bool | None) -> Iterable[LogRow]:
    for device in dict.fromkeys(record.device for record in records):
        here = [record for record in records if record.device == device]
        good = [record for record in here if record.ok]
        best = min(good, key=lambda r: (r.minimum, r.median), default=None)
        first = good[0] if good else None
        yield LogRow(task, here[0].operator, device, len(here), len(here) - len(good), best, first, finished)


def log_table(rows: list[LogRow]) -> Table:
    """Template versions and threads only where there are several."""
    versions = {(row.operator, row.task.template) for row in rows}
    several = len(versions) > len({operator for operator, _ in versions})
    return table(_HEADERS, [_cells(row, several) for row in rows], right=_NUMBERS)


def _cells(row: LogRow, template: bool) -> list[str]:
    workload, best = row.workload, row.best
    return [
        row.operator,
        workload.summary if workload else "unknown",
        workload.format if workload else "",
        row.task.instructions,
        f"v{row.task.template}" if template else "",
        str(row.task.batch),
        str(workload.threads) if workload and workload.threads > 1 else "",
        f"{row.trials}" + (f" ({row.failed} failed)" if row.failed else ""),
        *(cost_text(best.minimum, unit) if best and best.unit == unit else "" for unit in UNITS),
        f"{row.speedup:.2f}x" if row.speedup else "",
        ", ".join(f"{k} {_word(v)}" for k, v in json.loads(best.knobs).items()) if best else "",
        row.device,
        best.created[:10] if best else "",
        "" if row.finished is None else "finished" if row.finished else "begun",
    ]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def log_json(row: LogRow) -> dict[str, Any]:
    """Everything that the table says, and what it rounds."""
    best, workload = row.best, row.workload
    return {
        "operator": row.operator,
        "shape": workload.summary if workload else None,
        "workload": json.loads(row.task.workload),
        "batch": row.task.batch,
        "instructions": row.task.instructions,
        "template": row.task.template,
        "device": row.device,
        "trials": row.trials,
        "failed": row.failed,
        "finished": row.finished,
        f"first_{row.task.unit}": row.first.minimum if row.first else None,
        "best": best
        and {
            f"minimum_{best.unit}": best.minimum,
            f"median_{best.unit}": best.median,
            "spread": best.spread,
            "knobs": json.loads(best.knobs),
            "cores": best.cores,
            "created": best.created,
            "tools": dict(best.tools),
            "footprint": best.footprint,
        },
    }
