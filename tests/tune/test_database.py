"""The file of a tuning log: older ones, damaged ones, and places where nothing can be written."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from qcompile.errors import QCompileError
from qcompile.tune import database
from qcompile.tune.log import TuningLog
from qcompile.tune.record import INSTRUCTIONS, Record, Search
from tests.tune.log_items import TASK, contents, fill, record

# Logs of before there were units

_OLD = f"""
PRAGMA application_id = {database.APPLICATION}; PRAGMA user_version = 1;
CREATE TABLE task (
    id INTEGER PRIMARY KEY, workload TEXT NOT NULL, batch INTEGER NOT NULL, instructions TEXT NOT NULL,
    template INTEGER NOT NULL, operator TEXT NOT NULL, UNIQUE (workload, batch, instructions, template)
);
CREATE TABLE record (
    number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, task INTEGER NOT NULL REFERENCES task, knobs TEXT NOT NULL,
    seconds TEXT NOT NULL, error TEXT NOT NULL, device TEXT NOT NULL, cores INTEGER NOT NULL, created TEXT NOT NULL,
    tools TEXT NOT NULL, footprint INTEGER NOT NULL, minimum REAL, median REAL
);
CREATE TABLE search (
    task INTEGER PRIMARY KEY REFERENCES task, trials INTEGER NOT NULL, finished INTEGER NOT NULL, created TEXT NOT NULL
);
CREATE INDEX task_by_operator ON task (operator, instructions, template);
CREATE INDEX record_by_speed ON record (task, device, minimum, median, id);
"""


@pytest.fixture
def old(tmp_path) -> Path:
    """A log of schema 1 with ``record()`` and a search of it."""
    r, path = record(), tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(_OLD)
    connection.execute("INSERT INTO task VALUES (1, ?, ?, ?, ?, 'conv2d')", TASK)
    made = (json.dumps(r.costs), r.error, r.device, r.cores, r.created, json.dumps(r.tools), r.footprint)
    values = (bytes.fromhex(r.id), r.knobs, *made, r.minimum, r.median)
    connection.execute("INSERT INTO record VALUES (1, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    connection.execute("INSERT INTO search VALUES (1, 7, 1, ?)", (r.created,))
    connection.commit()
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return path


def test_an_old_log_is_brought_up_to_date(old):
    search = Search(*TASK, trials=7, finished=True, created=record().created)
    with TuningLog.open(old) as log, TuningLog.open(old) as other:
        assert list(log.items()) == list(other.items()) == [search, record()]
        assert log.update([record(), record(unit=INSTRUCTIONS), record(9.0)]) == 2
        assert len(other) == 3
    assert len(contents(old)) == 4


def test_reading_an_old_log_leaves_it_as_it_is(old):
    before = old.read_bytes()
    assert [item for item in contents(old) if isinstance(item, Record)] == [record()]
    assert old.read_bytes() == before


# Refusing


def foreign_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE record (id); INSERT INTO record VALUES (1)")
    connection.close()


def newer_schema(path: Path) -> None:
    fill(path, record())
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {database.SCHEMA + 1}")
    connection.close()


def cut_off(path: Path) -> None:
    fill(path, *(record(float(us), us) for us in range(1, 500)))
    os.truncate(path, path.stat().st_size // 2)


def cut_to_the_head(path: Path) -> None:
    fill(path, record())
    os.truncate(path, 50)


def scribbled(path: Path) -> None:
    fill(path, *(record(float(us), us) for us in range(1, 500)))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 20_000)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "log.db: a folder, not a tuning log; name a file in it"),
        (Path.touch, "log.db: an empty file, not a tuning log; name another file"),
        (lambda path: path.write_text("notes"), "log.db: not a tuning log, but a file of something else; name another"),
        (foreign_database, "log.db: not a tuning log, but an SQLite database of another application; name another"),
        (newer_schema, "log.db: written by a newer qcompile (schema 3, not 2); upgrade qcompile, or name another"),
        (cut_off, "log.db: damaged; restore a copy"),
        (cut_to_the_head, "log.db: damaged: cut off; restore a copy"),
        (scribbled, "log.db: damaged; restore a copy"),
    ],
    ids=["folder", "empty", "text", "foreign", "newer", "cut", "head", "scribbled"],
)
def test_refused_in_words_and_left_alone(tmp_path, make, message, read_only):
    path = tmp_path / "log.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(QCompileError) as refused:
        TuningLog.open(path, read_only=read_only)
    assert message in str(refused.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert os.listdir(tmp_path) == ["log.db"]


def test_damage_met_later_is_said_in_words(log):
    log.update(record(float(us), us) for us in range(1, 500))
    log._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log._connection.execute("PRAGMA cache_size = 0")
    with log.path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 60_000)
    with pytest.raises(QCompileError, match="damaged; restore a copy"):
        list(log.records())


@pytest.mark.parametrize("options", [{"read_only": True}, {"create": False}])
def test_a_missing_log_is_not_made(tmp_path, options):
    with pytest.raises(QCompileError, match="no such tuning log; 'qcompile tune' makes one"):
        TuningLog.open(tmp_path / "log.db", **options)
    assert not os.listdir(tmp_path)


def test_a_place_where_nothing_can_be_made():
    with pytest.raises(QCompileError, match="/proc/log.db: cannot be written: .*; name another log"):
        TuningLog.open("/proc/log.db")


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(QCompileError, match="Not a directory"):
        TuningLog.open(tmp_path / "file" / "log.db")


def test_whoever_makes_the_log_first_wins(tmp_path, monkeypatch):
    """Between looking and making, another process has made it, and written into it."""
    path = tmp_path / "log.db"
    link = os.link

    def late(source, target):
        monkeypatch.setattr(os, "link", link)
        fill(path, record())
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with TuningLog.open(path) as log:
        assert log.trials(*TASK) == [record()]
    assert os.listdir(tmp_path) == ["log.db"]


def test_a_lock_that_stays(log, monkeypatch):
    log._connection.execute("PRAGMA busy_timeout = 10")
    with contextlib.closing(sqlite3.connect(log.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QCompileError, match="log.db: another process kept it locked for 60 s; try again"):
            log.add(record())
        assert log.trials(*TASK) == [], "reading goes on"
    log.add(record())


def test_a_full_disk(log):
    pages = log._connection.execute("PRAGMA page_count").fetchone()[0]
    log._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    added = []
    with pytest.raises(QCompileError, match="log.db: the disk is full; all earlier records are safe; make room"):
        for us in range(1, 10_000):
            log.add(record(float(us), us))
            added.append(record(float(us), us))
    assert added and contents(log.path) == added
    log._connection.execute("PRAGMA max_page_count = 1000000")
    log.add(record(0.5, 10_000))
    assert len(contents(log.path)) == len(added) + 1


@pytest.mark.parametrize("name", ["a b?c=1#d%20é.db", os.fsdecode(b"\xff.db")])
def test_odd_names(tmp_path, name):
    path = fill(tmp_path / name, record())
    assert contents(path) == [record()] and os.listdir(tmp_path) == [name]


def test_a_link_to_a_log(tmp_path):
    (tmp_path / "link.db").symlink_to(fill(tmp_path / "log.db", record()))
    fill(tmp_path / "link.db", record(2.0))
    assert contents(tmp_path / "log.db") == [record(), record(2.0)]
    assert sorted(os.listdir(tmp_path)) == ["link.db", "log.db"]


# Read-only places


def as_nobody(function):
    """``function()`` in a process without root's right to write anywhere; its result, or its QCompileError."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            try:
                answer = function()
            except QCompileError as error:
                answer = str(error)
            os.write(writer, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as file:
        return pickle.loads(file.read())


@pytest.fixture
def product():
    """A folder that nobody may write, with a log that nobody may write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder / "log.db", record())
        (folder / "log.db").chmod(0o444)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_log_in_a_read_only_place(product):
    assert as_nobody(lambda: contents(product / "log.db")) == [record()]
    assert as_nobody(lambda: TuningLog.open(product / "log.db")) == (
        f"{product / 'log.db'}: cannot be written: no permission there; name another log"
    )
    assert os.listdir(product) == ["log.db"]


def test_a_read_only_log_that_was_not_closed(product):
    product.chmod(0o755)
    with TuningLog.open(product / "log.db") as log:
        log.add(record(2.0))
        shutil.copy(product / "log.db-wal", product / "kept")
    (product / "kept").rename(product / "log.db-wal")
    product.chmod(0o555)
    assert "was not closed: the newest records are in log.db-wal" in as_nobody(lambda: contents(product / "log.db"))


def test_reading_changes_no_byte(tmp_path):
    path = fill(tmp_path / "log.db", record())
    before = path.read_bytes()
    with TuningLog.open(path, read_only=True) as log:
        assert log.best(*TASK) == record()
        with pytest.raises(QCompileError, match="cannot be written"):
            log.add(record(2.0))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["log.db"]


def test_reading_while_another_writes(log):
    log.add(record())
    with TuningLog.open(log.path, read_only=True) as reader:
        log.add(record(2.0, 2))
        assert reader.best(*TASK) == record(2.0, 2)
