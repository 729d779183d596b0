"""``prune``: a log without the records that decide nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import astuple

from qcompile.errors import QCompileError
from qcompile.tune.database import in_words
from qcompile.tune.log import ONE_TASK, TuningLog
from qcompile.tune.record import Task

# The best record of each knobs, ranked among those of its task on its CPU; ties as in TuningLog.best.
_SLOWER = """
DELETE FROM record WHERE number NOT IN (
    SELECT number FROM (
        SELECT number, row_number() OVER (PARTITION BY task, device ORDER BY minimum, median, id) AS place FROM (
            SELECT *, row_number() OVER (PARTITION BY task, device, knobs ORDER BY minimum, median, id) AS again
            FROM record
        ) WHERE again = 1
    ) WHERE place <= ?
)
"""
_OLDER = "template < (SELECT max(template) FROM task AS newer WHERE newer.operator = task.operator)"


class _Undo(Exception):
    pass


def prune(
    log: TuningLog, keep: int = 5, used: Callable[[Task], bool] | None = None, dry_run: bool = False
) -> dict[str, int]:
    """Drops failed trials, all but the ``keep`` fastest of each task on each CPU, and what is no longer looked for.

    used: tells which tasks are of use to somebody; None for all of them. Records of an operator whose template has
    a newer version in the log are never applied again, and go. A finished search stays finished. dry_run: only count.

    Returns how many records went, for each reason: "instructions", "template", "failed", "slower".
    """
    if keep < 1:
        raise QCompileError(f"{keep} records of each layer would be kept", remedy="keep 1 or more")
    counts: dict[str, int] = {}
    try:
        with log.transaction() as connection:
            unused = [task for task in log.tasks() if used is not None and not used(task)]
            counts["instructions"] = sum(_drop(connection, ONE_TASK, astuple(task)) for task in unused)
            counts["template"] = _drop(connection, _OLDER)
            counts["failed"] = connection.execute("DELETE FROM record WHERE minimum IS NULL").rowcount
            counts["slower"] = connection.execute(_SLOWER, (keep,)).rowcount
            connection.execute(
                "DELETE FROM task WHERE id NOT IN (SELECT task FROM record UNION SELECT task FROM search)"
            )
            if dry_run:
                raise _Undo
    except _Undo:
        return counts
    with in_words(log.path):
        connection.execute("VACUUM")
    return counts


def _drop(connection: sqlite3.Connection, tasks: str, values: tuple = ()) -> int:
    """Drops what belongs to some tasks; returns the number of records. The tasks themselves stay for the moment."""
    of = f"WHERE task IN (SELECT id FROM task WHERE {tasks})"
    connection.execute(f"DELETE FROM search {of}", values)
    return connection.execute(f"DELETE FROM record {of}", values).rowcount
