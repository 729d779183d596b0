"""``TuningLog``: every trial that was ever paid for.

A record is found by its workload, batch, instructions and template version, and is never applied to others of the last
two. Costs in one unit never compare with those in another. Records of equal content are one record.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

from qcompile.errors import QCompileError
from qcompile.tune import database, log_file
from qcompile.tune.record import SECONDS, Record, Search, Task, operator_of

_TASK = "workload, batch, instructions, template"
_RECORD = (
    f"SELECT {_TASK}, knobs, costs, error, device, cores, created, tools, footprint, unit"
    " FROM record JOIN task ON task = task.id "
)
_SEARCH = f"SELECT {_TASK}, trials, finished, created, unit FROM search JOIN task ON task = id "
ONE_TASK = "workload = ? AND batch = ? AND instructions = ? AND template = ? AND unit = ?"
_OF_TASK = f"WHERE {ONE_TASK} "
_IN_ORDER = f"ORDER BY operator, {_TASK}, unit DESC"
_FASTEST = "ORDER BY minimum, median, record.id LIMIT 1"


class TuningLog:
    """An open log. Use it in the thread and process that opened it; other processes open it for themselves.

    All methods raise ``QCompileError`` if the file is damaged, locked for a minute, or on a full disk.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection):
        self.path, self._connection = path, connection

    @staticmethod
    def open(path: str | Path, create: bool = True, read_only: bool = False) -> TuningLog:
        """The log at ``path``.

        create: make a new one, and its folder, if nothing is there. read_only: nothing is added to it; it may be in a
        place where nothing can be written, and may be an exported file of JSON lines.

        Raises ``QCompileError`` for anything but a sound log of this schema, and leaves it as it is.
        """
        place = Path(path)
        text = is_text(place)
        if text and read_only:
            log = TuningLog(place, database.memory())
            log.update(log_file.read(place))
            log._connection.execute("PRAGMA query_only = ON")
            return log
        if text or (place.suffix == ".jsonl" and not place.exists() and not read_only):
            raise QCompileError(
                "a log of JSON lines is only read",
                node=str(path),
                remedy="put it into a log with 'qcompile log import'",
            )
        connection = database.open_read_only(place) if read_only else database.open_writable(place, create)
        return TuningLog(place, connection)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> TuningLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing

    def add(self, record: Record) -> None:
        """Keeps a record; when this returns, killing the process does not lose it."""
        self.update([record])

    def set_search(self, search: Search) -> None:
        """Replaces the state of a task's search."""
        with self.transaction():
            self._put_search(search)

    def update(self, items: Iterable[Record | Search]) -> int:
        """Takes over what is new among ``items``, all or nothing; returns how many records that was.

        Of two searches of one task the one that came further stays.
        """
        items = list(items)
        added = 0
        with self.transaction():
            for item in items:
                if isinstance(item, Record):
                    added += self._put_record(item)
                elif (old := self.search(*astuple(item.task))) is None or _progress(item) > _progress(old):
                    self._put_search(item)
        return added

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Changes of which all are made or none; other writers wait."""
        with database.in_words(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _put_record(self, record: Record) -> int:
        values = (
            *(bytes.fromhex(record.id), self._task(record.task), record.knobs, json.dumps(record.costs)),
            *(record.error, record.device, record.cores, record.created, json.dumps(record.tools), record.footprint),
            *((record.minimum, record.median) if record.ok else (None, None)),
        )
        return self._connection.execute(
            "INSERT OR IGNORE INTO record (id, task, knobs, costs, error, device, cores, created, tools, footprint,"
            " minimum, median) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        ).rowcount

    def _put_search(self, search: Search) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO search (task, trials, finished, created) VALUES (?, ?, ?, ?)",
            (self._task(search.task), search.trials, search.finished, search.created),
        )

    def _task(self, task: Task) -> int:
        found = self._connection.execute("SELECT id FROM task " + _OF_TASK, astuple(task)).fetchone()
        if found:
            return found[0]
        return self._connection.execute(
            "INSERT INTO task (workload, batch, instructions, template, unit, operator) VALUES (?, ?, ?, ?, ?, ?)",
            (*astuple(task), operator_of(task.workload)),
        ).lastrowid

    # Reading

    def best(
        self, workload: str, batch: int, instructions: str, template: int, unit: str = SECONDS, device: str = ""
    ) -> Record | None:
        """The fastest record of a task, None if none succeeded.

        Fastest is the least minimum: noise of neighbours, interrupts and clocks only ever adds time, so the minimum of
        several timings is the least disturbed of them. The median decides between equal minima.

        Times of two CPUs do not compare: those of ``device`` decide if there are any, else those of the CPU that was
        measured last.
        """
        found = self._rows("SELECT id FROM task " + _OF_TASK, (workload, batch, instructions, template, unit))
        return self._best(found[0][0], device) if found else None

    def trials(self, workload: str, batch: int, instructions: str, template: int, unit: str = SECONDS) -> list[Record]:
        """All records of a task, failed ones too, in the order in which they came into this log."""
        key = (workload, batch, instructions, template, unit)
        return [_record(row) for row in self._rows(_RECORD + _OF_TASK + "ORDER BY number", key)]

    def search(self, workload: str, batch: int, instructions: str, template: int, unit: str = SECONDS) -> Search | None:
        """How far the search of a task has come, None if it never began."""
        found = self._rows(_SEARCH + _OF_TASK, (workload, batch, instructions, template, unit))
        return _search(found[0]) if found else None

    def same_operator(
        self, operator: str, instructions: str, template: int, unit: str = SECONDS, device: str = ""
    ) -> list[Record]:
        """The best record of every task of an operator on the same instructions: what knobs may be transferred from."""
        return self._best_of(
            "SELECT id FROM task WHERE operator = ? AND instructions = ? AND template = ? AND unit = ? " + _IN_ORDER,
            (operator, instructions, template, unit),
            device,
        )

    def other_batches(
        self, workload: str, batch: int, instructions: str, template: int, unit: str = SECONDS, device: str = ""
    ) -> list[Record]:
        """The best record of the same layer at every batch but ``batch``, nearest batch first."""
        records = self._best_of(
            "SELECT id FROM task WHERE workload = ? AND batch <> ? AND instructions = ? AND template = ? AND unit = ?",
            (workload, batch, instructions, template, unit),
            device,
        )
        return sorted(records, key=lambda r: (abs(math.log(r.batch / batch)), r.batch))

    def tasks(self) -> list[Task]:
        """All that has a record or a search, in the order of ``records``."""
        every = f"SELECT {_TASK}, unit FROM task "
        return [Task(*row) for row in self._rows(every + _IN_ORDER)]

    def records(self, instructions: str | None = None) -> Iterator[Record]:
        """All records, or those of some instructions, task by task, each task's as ``trials`` has them."""
        where, values = ("", ()) if instructions is None else ("WHERE instructions = ? ", (instructions,))
        with database.in_words(self.path):
            for row in self._connection.execute(f"{_RECORD}{where}{_IN_ORDER}, number", values):
                yield _record(row)

    def searches(self) -> Iterator[Search]:
        return (_search(row) for row in self._rows(_SEARCH + _IN_ORDER))

    def items(self) -> Iterator[Record | Search]:
        """Everything, for ``update`` of another log or for a file."""
        yield from self.searches()
        yield from self.records()

    def __len__(self) -> int:
        return self._rows("SELECT count(*) FROM record")[0][0]

    def _best(self, task: int, device: str) -> Record | None:
        """Of a task's number."""
        of = "FROM record WHERE task = ? AND minimum IS NOT NULL "
        if not self._rows(f"SELECT 1 {of} AND device = ? LIMIT 1", (task, device)):
            latest = self._rows(f"SELECT device {of} ORDER BY created DESC, number DESC LIMIT 1", (task,))
            if not latest:
                return None
            device = latest[0][0]
        where = "WHERE task = ? AND device = ? AND minimum IS NOT NULL "
        return _record(self._rows(_RECORD + where + _FASTEST, (task, device))[0])

    def _best_of(self, query: str, values: tuple, device: str) -> list[Record]:
        found = [self._best(row[0], device) for row in self._rows(query, values)]
        return [record for record in found if record]

    def _rows(self, query: str, values: tuple = ()) -> list[Any]:
        with database.in_words(self.path):
            return self._connection.execute(query, values).fetchall()


def is_text(path: Path) -> bool:
    """Whether a file is, or by its name claims to be, an exported log."""
    if not path.is_file() or database.is_database(path):
        return False
    with path.open("rb") as file:
        return path.suffix == ".jsonl" or file.read(len(log_file.HEAD)) == log_file.HEAD.encode()


def _progress(search: Search) -> tuple[bool, int, str]:
    return search.finished, search.trials, search.created


def _record(row: tuple) -> Record:
    values = list(row)
    values[5], values[10] = tuple(json.loads(row[5])), tuple(map(tuple, json.loads(row[10])))  # costs, tools
    return Record(*values)


def _search(row: tuple) -> Search:
    values = list(row)
    values[5] = bool(row[5])  # finished
    return Search(*values)
