"""What pruning drops of a tuning log."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompile.errors import QCompileError
from qcompile.tune.prune import prune
from qcompile.tune.record import Search
from tests.tune.log_items import AVX2, DENSE, TASK, contents, record


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
