"""The SQLite file of a tuning log: made whole, opened only if it is ours and sound, errors in words.

A log is in WAL mode with ``synchronous=NORMAL``: a killed process loses what it had not committed and no more; after a
power failure the last commits may be missing, and the file is sound. Several processes may write at once.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from qcompile.errors import QCompileError

APPLICATION = 0x71634C67  # "qcLg"
SCHEMA = 2
_OLDER = 1  # had seconds only; brought up to date when it is opened, a copy of it where it is only read
_MAGIC = b"SQLite format 3\0"
_HEADER = 100  # bytes of SQLite's header, with the application's number at 68
_WAIT = 60.0  # seconds for other writers
_RECOVER = "restore a copy, or save what is readable with sqlite3's .recover"
_TASK = """
CREATE TABLE {name} (
    id INTEGER PRIMARY KEY, workload TEXT NOT NULL, batch INTEGER NOT NULL, instructions TEXT NOT NULL,
    template INTEGER NOT NULL, operator TEXT NOT NULL, unit TEXT NOT NULL,
    UNIQUE (workload, batch, instructions, template, unit)
);
"""
_INDEX = "CREATE INDEX task_by_operator ON task (operator, instructions, template, unit);"
_TABLES = f"""
{_TASK.format(name="task")}
CREATE TABLE record (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, task INTEGER NOT NULL REFERENCES task, knobs TEXT NOT NULL,
    costs TEXT NOT NULL, error TEXT NOT NULL, device TEXT NOT NULL, cores INTEGER NOT NULL, created TEXT NOT NULL,
    tools TEXT NOT NULL, footprint INTEGER NOT NULL, minimum REAL, median REAL
);
CREATE TABLE search (
    task INTEGER PRIMARY KEY REFERENCES task, trials INTEGER NOT NULL, finished INTEGER NOT NULL, created TEXT NOT NULL
);
{_INDEX}
CREATE INDEX record_by_speed ON record (task, device, minimum, median, id);
"""
_UPDATE = f"""
{_TASK.format(name="new_task")}
INSERT INTO new_task SELECT id, workload, batch, instructions, template, operator, 'seconds' FROM task;
DROP TABLE task;
ALTER TABLE new_task RENAME TO task;
ALTER TABLE record RENAME COLUMN seconds TO costs;
{_INDEX}
PRAGMA user_version = {SCHEMA}
"""


def memory() -> sqlite3.Connection:
    """An empty database that no other process sees."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    _make_tables(connection)
    return connection


def open_writable(path: Path, create: bool) -> sqlite3.Connection:
    """The database at ``path``; with ``create`` a new one if nothing is there."""
    if not path.exists():
        if not create:
            raise _missing(path)
        _create(path)
    _check_header(path)
    if not _writable(path):
        raise QCompileError("cannot be written: no permission there", node=str(path), remedy="name another log")
    with in_words(path):
        return _checked(_connect(path, "mode=rw"), path, update=True)


def open_read_only(path: Path) -> sqlite3.Connection:
    """The database at ``path``, also where nothing may be written; no statement can change it."""
    if not path.exists():
        raise _missing(path)
    _check_header(path)
    with in_words(path):
        if _writable(path):  # then SQLite can finish what a killed writer left, and tidies up
            connection = _checked(_connect(path, "mode=rw"), path)
            connection.execute("PRAGMA query_only = ON")
            return connection
        beside = Path(f"{path.resolve()}-wal")
        if not beside.exists():
            return _checked(_connect(path, "immutable=1"), path)
        try:
            return _checked(_connect(path, "mode=ro"), path)
        except sqlite3.OperationalError as error:
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
        raise QCompileError(
            f"was not closed: the newest records are in {beside.name}",
            node=str(path),
            remedy="run 'qcompile log show' on it where both can be written, and give the log that it leaves",
        )


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A place for a file that then appears at ``path`` whole, unless the body raises.

    Raises FileExistsError if something is at ``path`` by then: it is left alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        new = Path(folder) / path.name
        yield new
        with open(new, "rb") as file:
            os.fsync(file.fileno())
        os.link(new, path)


@contextlib.contextmanager
def in_words(path: str | Path) -> Iterator[None]:
    """Turns what SQLite or the system says about a file into ``QCompileError``."""
    try:
        yield
    except sqlite3.Error as error:
        code = _code(error)
        if code is None:  # misuse of the module: a defect
            raise
        reason, remedy = {
            sqlite3.SQLITE_BUSY: (f"another process kept it locked for {_WAIT:.0f} s", "try again"),
            sqlite3.SQLITE_READONLY: ("cannot be written", "name another log"),
            sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "see that the folder is there and can be written"),
            sqlite3.SQLITE_FULL: ("the disk is full; all earlier records are safe", "make room"),
            sqlite3.SQLITE_IOERR: (f"cannot be read or written ({error})", "see that its disk is well and has room"),
            sqlite3.SQLITE_CORRUPT: ("damaged", _RECOVER),
            sqlite3.SQLITE_NOTADB: ("damaged", _RECOVER),
        }.get(code, (str(error), None))
        raise QCompileError(reason, node=str(path), remedy=remedy) from None
    except OSError as error:
        raise QCompileError(f"cannot be written: {error.strerror}", node=str(path), remedy="name another log") from None


def _writable(path: Path) -> bool:
    """SQLite needs two files beside a database in WAL mode; of a link, beside what it points to."""
    return os.access(path, os.W_OK) and os.access(path.resolve().parent, os.W_OK)


def is_database(path: Path) -> bool:
    """Whether the file is SQLite's, of whatever application."""
    return _head(path).startswith(_MAGIC)


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEADER)
    except IsADirectoryError:
        raise QCompileError("a folder, not a tuning log", node=str(path), remedy="name a file in it") from None
    except OSError as error:
        raise QCompileError(f"cannot be read: {error.strerror}", node=str(path)) from None


def _check_header(path: Path) -> None:
    """Before SQLite sees the file: it would tidy up after a foreign application."""
    head = _head(path)
    if not head.startswith(_MAGIC):
        raise QCompileError(
            "not a tuning log, but a file of something else" if head else "an empty file, not a tuning log",
            node=str(path),
            remedy="name another file; a new one is made if nothing is there",
        )
    if len(head) < _HEADER:
        raise QCompileError("damaged: cut off", node=str(path), remedy=_RECOVER)
    if int.from_bytes(head[68:72], "big") != APPLICATION:
        raise QCompileError(
            "not a tuning log, but an SQLite database of another application",
            node=str(path),
            remedy="name another file; a new one is made if nothing is there",
        )


def _connect(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path.absolute()))}?{how}", uri=True, timeout=_WAIT, isolation_level=None
    )


def _checked(connection: sqlite3.Connection, path: Path, update: bool = False) -> sqlite3.Connection:
    """The connection if its database is sound, else it is closed; of an older one updated, or to a copy that is."""
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (SCHEMA, _OLDER):
            raise QCompileError(
                f"written by {'a newer' if version > SCHEMA else 'another'} qcompile (schema {version}, not {SCHEMA})",
                node=str(path),
                remedy="upgrade qcompile, or name another log",
            )
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise QCompileError("damaged", node=str(path), remedy=_RECOVER)
        if version == _OLDER:
            if not update:
                connection = _copy(connection)
            _bring_up_to_date(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _copy(connection: sqlite3.Connection) -> sqlite3.Connection:
    copy = sqlite3.connect(":memory:", isolation_level=None)
    with contextlib.closing(connection):
        connection.backup(copy)
    return copy


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("PRAGMA user_version").fetchone()[0] == _OLDER:  # no other process was faster
        for statement in _UPDATE.split(";"):
            connection.execute(statement)
    connection.execute("COMMIT")


def _create(path: Path) -> None:
    with in_words(path), contextlib.suppress(FileExistsError), new_file(path) as new:
        connection = sqlite3.connect(new, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")  # until it is where others see it
        _make_tables(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.executescript(f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};")
    connection.executescript(f"BEGIN; {_TABLES} COMMIT;")


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _missing(path: Path) -> QCompileError:
    return QCompileError("no such tuning log", node=str(path), remedy="'qcompile tune' makes one")
