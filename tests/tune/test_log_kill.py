"""Two processes add records to one log and are killed with SIGKILL, again and again: nothing that was added is lost."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

from qcompile.tune.log import TuningLog

KILLS = 20
# Adds records number 0, 1, ... and says each number after it was added. A search comes with every tenth.
WRITER = """
import os, sys
from qcompile.tune.log import TuningLog
from qcompile.tune.record import Record, Search
name, path = sys.argv[1:]
task = ('{"operator":"conv2d","writer":"%s"}' % name, 1, "x86-64-v4 vpdpbusd.512 r32", 1)
log = TuningLog.open(path)
created = "2026-01-31T12:00:00Z"
number = 0
while True:
    knobs = '{"number":%d}' % number
    log.add(Record(*task, knobs, (1e-6,) * 8, "", "EPYC", 2, created, (("tvm", "0.27.0"),), 1 << 20))
    if number % 10 == 9:
        log.set_search(Search(*task, number, False, created))
    os.write(1, b"%d\\n" % number)
    number += 1
"""


def start(name: str, path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WRITER, name, str(path)], stdout=subprocess.PIPE)


def test_sigkill_loses_nothing_that_was_added(tmp_path):
    path, rng = tmp_path / "log.db", random.Random(3)
    numbers: dict[str, int] = {}  # writer -> the last number that it said
    for turn in range(KILLS):
        writers = {f"{side}{turn}": start(f"{side}{turn}", path) for side in "ab"}
        try:
            first = {
                "a": writers[f"a{turn}"].stdout.readline()
            }  # one is at work, the other perhaps still opens the log
            time.sleep(rng.uniform(0, 0.05))
        finally:
            for writer in writers.values():
                writer.send_signal(signal.SIGKILL)
        for name, writer in writers.items():
            said = (first.get(name[0], b"") + writer.communicate()[0]).rpartition(b"\n")[0]
            assert writer.returncode == -signal.SIGKILL
            numbers[name] = int(said.split()[-1]) if said else -1
        check(path, numbers)


def check(path, numbers: dict[str, int]) -> None:
    """The log is sound and has what every writer ever said, and of each writer at most one record more."""
    with TuningLog.open(path, create=False) as log:
        found = dict.fromkeys(numbers, -1)
        for record in log.records():
            writer = record.workload.split('"')[-2]
            found[writer] += 1
            assert record.knobs == f'{{"number":{found[writer]}}}'
        assert all(numbers[writer] <= found[writer] <= numbers[writer] + 1 for writer in numbers)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
