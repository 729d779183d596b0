"""The tuning log: what it finds, what it refuses, and that it changes nothing that it should not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import shutil
import sqlite3
import tempfile
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcompile.errors import QCompileError
from qcompile.tune import database, locations, log_file
from qcompile.tune.log import TuningLog
from qcompile.tune.prune import prune
from qcompile.tune.record import INSTRUCTIONS, Record, Search, Task, canonical

VNNI, AVX2 = "x86-64-v4 vpdpbusd.512 r32", "x86-64-v3 vpmaddwd.256 r16"
CONV, DENSE = (canonical({"operator": name, "weight": [64, 64]}) for name in ("conv2d", "dense"))
TASK = (CONV, 1, VNNI, 1)


def record(us: float | None = 10.0, knobs: int = 1, **changes) -> Record:
    """One trial of ``TASK``; us None for a failed one."""
    result = Record(
        *TASK,
        knobs=canonical({"columns": knobs}),
        costs=() if us is None else (us * 1e-6, us * 2e-6),
        error="wrong result" if us is None else "",
        device="EPYC",
        cores=2,
        created="2026-01-31T12:00:00Z",
        tools=(("tvm", "0.27.0"),),
        footprint=1 << 20,
    )
    return dataclasses.replace(result, **changes)


@pytest.fixture
def log(tmp_path):
    with TuningLog.open(tmp_path / "log.db") as opened:
        yield opened


def fill(path: Path, *items: Record | Search) -> Path:
    with TuningLog.open(path) as opened:
        opened.update(items)
    return path


def contents(path: Path) -> list[Record | Search]:
    with TuningLog.open(path, read_only=True) as opened:
        return list(opened.items())


# Finding


def test_a_new_log_is_empty(log, tmp_path):
    assert (len(log), log.best(*TASK), log.trials(*TASK), log.search(*TASK)) == (0, None, [], None)
    assert (list(log.items()), log.tasks()) == ([], [])


def test_best_is_the_least_minimum(log):
    slow_median = record(8.0, 2, costs=(8e-6, 90e-6))
    for r in (record(9.0, 1), slow_median, record(8.0, 3, costs=(8e-6, 91e-6)), record(None, 4)):
        log.add(r)
    assert log.best(*TASK) == slow_median
    assert [r.knobs for r in log.trials(*TASK)] == [canonical({"columns": n}) for n in (1, 2, 3, 4)]


def test_failures_are_no_best(log):
    log.add(record(None))
    assert log.best(*TASK) is None
    assert log.trials(*TASK) == [record(None)]


@pytest.mark.parametrize(
    "change",
    [{"workload": DENSE}, {"batch": 2}, {"instructions": AVX2}, {"template": 2}, {"unit": INSTRUCTIONS}],
    ids=lambda c: next(iter(c)),
)
def test_records_of_another_task_are_never_found(log, change):
    log.add(record(**change))
    assert (log.best(*TASK), log.trials(*TASK)) == (None, [])
    assert log.best(*dataclasses.astuple(record(**change).task)) == record(**change)


def test_times_of_two_cpus_do_not_compare(log):
    fast_old = record(5.0, 1, device="Xeon")
    new = [record(us, us, device="EPYC", created="2026-02-01T00:00:00Z") for us in (20, 15)]
    log.update([*new, fast_old])
    assert log.best(*TASK) == new[1], "measured last"
    assert log.best(*TASK, device="Xeon") == fast_old
    assert log.best(*TASK, device="Core") == new[1], "nothing of it: as without"
    log.add(record(None, 9, device="Xeon", created="2026-03-01T00:00:00Z"))
    assert log.best(*TASK) == new[1], "a failure is no measurement"


def test_units_do_not_displace_one_another(log):
    """Neither a record nor the end of a search, however small the number."""
    counted = record(1.0, 2, unit=INSTRUCTIONS)
    log.update([record(9.0, 1), counted])
    log.set_search(Search(*TASK, trials=8, finished=True, created=counted.created, unit=INSTRUCTIONS))
    assert (log.best(*TASK), log.search(*TASK)) == (record(9.0, 1), None)
    assert log.same_operator("conv2d", VNNI, 1, INSTRUCTIONS) == [counted]
    assert log.other_batches(CONV, 8, VNNI, 1, INSTRUCTIONS) == [counted]
    assert prune(log, keep=1)["slower"] == 0


def test_what_knobs_may_be_transferred_from(log):
    shapes = [canonical({"operator": "conv2d", "weight": [size]}) for size in (1, 1, 2)]
    near = [record(us, workload=shape) for shape, us in zip(shapes, (3, 2, 9), strict=True)]
    log.update([*near, record(workload=DENSE), record(instructions=AVX2), record(template=2), record(None, batch=4)])
    assert log.same_operator("conv2d", VNNI, 1) == [near[1], near[2]]
    assert log.same_operator("depthwise_conv2d", VNNI, 1) == []


def test_other_batches_nearest_first(log):
    records = {batch: record(batch=batch) for batch in (1, 4, 16, 64)}
    log.update([*records.values(), record(5.0, batch=16, template=2)])
    assert log.other_batches(CONV, 8, VNNI, 1) == [records[n] for n in (4, 16, 1, 64)]
    assert records[4] not in log.other_batches(CONV, 4, VNNI, 1)


def test_a_search_is_replaced(log):
    first = Search(*TASK, trials=8, finished=True, created="2026-01-01T00:00:00Z")
    again = dataclasses.replace(first, trials=2, finished=False)
    log.set_search(first)
    log.set_search(again)
    assert (log.search(*TASK), list(log.searches())) == (again, [again])
    assert log.tasks() == [Task(*TASK)]


def test_records_by_instructions(log):
    log.update([record(), record(instructions=AVX2)])
    assert list(log.records(AVX2)) == [record(instructions=AVX2)]
    assert len(list(log.records())) == len(log) == 2


def test_equal_records_are_one(log):
    assert log.update([record(), record(), record(11.0)]) == 2
    log.add(record())
    assert len(log) == 2


def test_update_is_all_or_nothing(log):
    def items():
        yield record()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.update(items())
    with pytest.raises(AttributeError):
        log.update([record(), None])
    assert len(log) == 0
    log.add(record())  # and is of use afterwards


@pytest.mark.parametrize("turn", [1, -1])
def test_of_two_searches_the_one_further_stays(log, turn):
    ended = Search(*TASK, trials=8, finished=True, created="2026-01-01T00:00:00Z")
    longer = Search(*TASK, trials=90, finished=False, created="2026-02-01T00:00:00Z")
    for search in (ended, longer)[::turn]:
        log.update([search])
    assert log.search(*TASK) == ended


def test_two_logs_become_one(log, tmp_path):
    search = Search(*TASK, 3, True, "2026-01-01T00:00:00Z")
    other = fill(tmp_path / "b.db", record(1.0), record(2.0, 2), search)
    log.add(record(1.0))
    with TuningLog.open(other, read_only=True) as b:
        assert (log.update(b.items()), log.update(b.items())) == (1, 0)
    assert set(log.items()) == {record(1.0), record(2.0, 2), search}


# As text

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
integers = st.integers(-(2**63), 2**63 - 1)
created = st.datetimes(datetime(2000, 1, 1)).map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%SZ}")
workloads = st.builds(lambda more, name: canonical(more | {"operator": name}), st.dictionaries(text, json_values), text)
tasks = {
    "workload": st.builds(
        lambda more, name: canonical(more | {"operator": name}), st.dictionaries(text, json_values), text
    ),
    "batch": st.integers(1, 2**63 - 1),
    "instructions": text,
    "template": integers,
    "created": created,
}
timings = st.lists(st.floats(min_value=0, exclude_min=True, allow_infinity=False), min_size=1, max_size=4).map(tuple)
records = st.builds(
    lambda outcome, **fields: Record(costs=outcome[0], error=outcome[1], **fields),
    outcome=st.tuples(timings, st.just("")) | st.tuples(st.just(()), text.filter(bool)),
    knobs=st.dictionaries(text, json_values, max_size=3).map(canonical),
    device=text,
    cores=integers,
    tools=st.dictionaries(text, text, max_size=2).map(lambda versions: tuple(sorted(versions.items()))),
    footprint=integers,
    **tasks,
)
searches = st.builds(Search, trials=integers, finished=st.booleans(), **tasks)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(items=st.lists(records | searches, max_size=5))
def test_text_round_trip(items):
    with tempfile.TemporaryDirectory() as folder, in_memory() as log, in_memory() as other:
        path = Path(folder) / "a.jsonl"
        log.update(items)
        assert set(log.records()) == {item for item in items if isinstance(item, Record)}
        path.write_text("".join(log_file.lines(log.items())), encoding="utf-8", newline="")
        assert other.update(log_file.read(path)) == len(log)
        assert list(other.items()) == list(log.items()) == contents(path)
        assert other.update(log_file.read(path)) == 0


def in_memory() -> TuningLog:
    return TuningLog(Path("memory"), database.memory())


def exported(*items: Record | Search) -> str:
    return "".join(log_file.lines(items))


def test_two_files_after_each_other_are_one(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(exported(record()) + "\n" + exported(record(2.0)))
    assert contents(path) == [record(), record(2.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.jsonl: empty; give a file written by 'qcompile log export'"),
        ("{}\n", "a.jsonl:1: not the first line of a tuning log"),
        ("[1]\n", "a.jsonl:1: not a JSON object"),
        ("workload,knobs\n", "a.jsonl:1: not JSON; give"),
        ("\x80", "a.jsonl: not text"),
        (exported() + '{"kind":"trial"}\n', "a.jsonl:2: neither a record nor a search"),
        (exported(record())[:-9], "a.jsonl:2: cut off or damaged: not JSON"),
        (exported(record()).replace('"cores":2,', ""), "a.jsonl:2: no 'cores'"),
        (exported(record()).replace('"cores":2', '"cores":"two"'), "a.jsonl:2: cores must be int, not 'two'"),
        (
            exported().replace("1}", "2}"),
            "a.jsonl:1: a tuning log in version 2 of its format; this qcompile reads version 1; use the qcompile that",
        ),
    ],
)
def test_unusable_text(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(QCompileError) as refused:
        TuningLog.open(path, read_only=True)
    assert message in str(refused.value)


def test_text_is_not_written_into(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(QCompileError, match="only read; put it into a log with 'qcompile log import'"):
        TuningLog.open(path)
    path.write_text(exported(record()))
    with pytest.raises(QCompileError, match="only read"):
        TuningLog.open(path)
    with TuningLog.open(path, read_only=True) as log, pytest.raises(QCompileError, match="cannot be written"):
        log.add(record(2.0))


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


# Pruning


def test_prune(log):
    kept = [record(float(us), us) for us in (1, 2)]
    slower = [record(float(us), us) for us in (3, 4)]
    again = record(1.5, 1)
    elsewhere = record(50.0, 50, device="Xeon")
    search = Search(*TASK, 6, True, "2026-01-01T00:00:00Z")
    log.update([*slower, again, *kept, elsewhere, record(None), search])
    expected = {"failed": 1, "slower": 3, "template": 0, "instructions": 0}
    assert prune(log, keep=2, dry_run=True) == expected
    assert len(log) == 7
    assert prune(log, keep=2) == expected
    assert set(log.items()) == {*kept, elsewhere, search}
    assert prune(log, keep=2) == dict.fromkeys(expected, 0)


def test_prune_drops_what_is_no_longer_used(log):
    old, new, dense = record(1.0), record(2.0, template=2), record(workload=DENSE)
    log.update([old, new, dense, Search(*TASK, 6, True, "2026-01-01T00:00:00Z")])
    assert prune(log)["template"] == 1
    assert list(log.items()) == [new, dense]
    assert log.tasks() == [new.task, dense.task]


def test_prune_by_instructions(log):
    log.update([record(), record(instructions=AVX2)])
    assert prune(log, used=lambda task: task.instructions == AVX2)["instructions"] == 1
    assert list(log.items()) == [record(instructions=AVX2)]


def test_prune_gives_room_back(log):
    log.update(record(None, us, error="x" * 1000) for us in range(1, 500))
    log.add(record())
    before = log.path.stat().st_size + Path(f"{log.path}-wal").stat().st_size
    prune(log)
    log.close()
    assert log.path.stat().st_size < before / 5
    assert contents(log.path) == [record()]


def test_prune_keeps_at_least_one(log):
    with pytest.raises(QCompileError, match="0 records of each layer would be kept"):
        prune(log, keep=0)


# Where


def test_the_default_is_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert locations.default_log() == tmp_path / "qcompile" / "tuning.db"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", unset)
        assert locations.default_log() == Path.home() / ".local/share/qcompile/tuning.db"


def test_every_shipped_log_opens():
    for path in locations.shipped_logs():
        with TuningLog.open(path, read_only=True) as log:
            assert len(log)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("none", []),
        (["none"], []),
        ("a.db", ["a.db"]),
        ("a.db, b.jsonl", ["a.db", "b.jsonl"]),
        (["a.db,b.db", "c.db", "a.db"], ["a.db", "b.db", "c.db"]),
        ("./none", ["none"]),
        ("~/x.db", [str(Path.home() / "x.db")]),
    ],
)
def test_locations(texts, expected):
    assert [str(path) for path in locations.parse_locations(texts)] == expected


@pytest.mark.parametrize(
    ("texts", "message"), [("a.db,none", "'none' stands alone"), ("a.db,", "an empty name"), ("", "an empty name")]
)
def test_unusable_locations(texts, message):
    with pytest.raises(QCompileError, match=message):
        locations.parse_locations(texts)
