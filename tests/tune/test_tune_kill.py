"""Two real sessions of ``qcompile tune`` on one log, killed at random moments: the log keeps all, no process stays."""

from __future__ import annotations

import platform
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from subprocess import PIPE

import onnx
import psutil
import pytest

from qcompile.tune.log import TuningLog
from tests.building import cnn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="measures x86-64 code"),
]
KILLS = 20
PROGRAM = [sys.executable, "-c", "from qcompile.cli import main; main()", "tune", "model.onnx", "--again"]


def ids(path: Path) -> set[str]:
    if not path.exists():
        return set()
    with TuningLog.open(path, read_only=True) as log:
        return {record.id for record in log.records()}


def test_sigkill_of_two_sessions_loses_nothing_that_was_recorded(tmp_path):
    onnx.save(cnn(), tmp_path / "model.onnx")
    rng, recorded = random.Random(4), 0
    for turn in range(KILLS):
        if turn % 2 == 0:  # before all knobs of so few layers are tried
            path, seen = tmp_path / f"{turn}.db", set()
        sessions = [
            subprocess.Popen([*PROGRAM, "--tuning-records", path, "--tasks", layers], cwd=tmp_path, stderr=PIPE)
            for layers in ("conv0,classes", "conv0,depthwise")
        ]
        workers = []
        try:
            before, limit = len(seen), time.monotonic() + 120
            while turn % 4 and len(seen) == before and time.monotonic() < limit:  # three of four die while they measure
                if all(session.poll() is not None for session in sessions):
                    break
                time.sleep(0.05)
                seen |= ids(path)
            end = time.monotonic() + rng.uniform(0, 3)
            while time.monotonic() < end:
                time.sleep(0.05)
                seen |= ids(path)
            workers = [child for s in sessions for child in _children(s.pid)]
        finally:
            for session in sessions:
                session.send_signal(signal.SIGKILL)
        for session in sessions:
            session.communicate()
        assert seen <= ids(path), f"records were lost at kill {turn}"
        with closing(sqlite3.connect(path)) if path.exists() else closing(sqlite3.connect(":memory:")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        gone, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive, "workers outlived the session"
        recorded += len(seen)
    assert recorded, "nothing was measured before any of the kills"


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
