"""Processes that work for us: their answers, their errors, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from qcompile.errors import QCompileError
from qcompile.tune.worker import Worker, WorkerDied, report


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path, {"COLOUR": "blue"})
    yield worker
    worker.close()


def square(x: int) -> int:
    return x * x


def refuse() -> None:
    raise QCompileError("no", node="here", remedy="go away")


def fail() -> None:
    class Strange(Exception):
        """Of a class that no other process has."""

    raise Strange("how odd")


def die_after(steps: int) -> None:
    for i in range(steps):
        report(i)
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    print("the last words")
    os._exit(3)


def lose() -> None:
    raise WorkerDied("lost", 7)


def slow_but_talking() -> str:
    for i in range(8):
        time.sleep(0.3)
        report(i)
    return "done"


def test_answers_come_from_one_process(worker, tmp_path):
    assert worker.call(square, 12, timeout=30) == 144
    first = worker.call(os.getpid, timeout=30)
    assert first == worker.call(os.getpid, timeout=30) != os.getpid()
    assert worker.call(os.getenv, "COLOUR", timeout=30) == "blue"
    assert worker.call(os.getenv, "TMPDIR", timeout=30) == str(tmp_path)


def test_errors_are_raised_here(worker):
    with pytest.raises(QCompileError) as error:
        worker.call(refuse, timeout=30)
    assert (str(error.value), error.value.remedy) == ("here: no; go away", "go away")
    with pytest.raises(FileNotFoundError):
        worker.call(os.listdir, "/nowhere", timeout=30)
    with pytest.raises(RuntimeError, match="Strange: how odd"):
        worker.call(fail, timeout=30)
    assert worker.call(square, 2, timeout=30) == 4


def test_death_tells_what_was_under_way(worker):
    with pytest.raises(WorkerDied, match="the process was ended by SIGSEGV") as died:
        worker.call(die_after, 3, timeout=30)
    assert died.value.progress == 2
    with pytest.raises(WorkerDied, match="the process ended: the last words") as died:
        worker.call(leave, timeout=30)
    assert died.value.progress is None
    assert worker.call(square, 2, timeout=30) == 4  # a new one


def test_lost_session_begins_anew(worker):
    before = worker.call(os.getpid, timeout=30)
    with pytest.raises(WorkerDied) as died:
        worker.call(lose, timeout=30)
    assert died.value.progress == 7
    assert worker.call(os.getpid, timeout=30) != before


def test_silence_ends_it_and_reports_do_not(worker):
    assert worker.call(square, 1, timeout=30) == 1
    assert worker.call(slow_but_talking, timeout=1.5) == "done"
    process = psutil.Process(worker.call(os.getpid, timeout=30))
    with pytest.raises(WorkerDied, match="no answer within 1 s"):
        worker.call(time.sleep, 1000, timeout=1)
    assert not process.is_running()


def test_closing_ends_a_call(worker):
    """From another thread, as Ctrl-C does while candidates are built."""
    worker.call(square, 1, timeout=30)
    threading.Timer(0.3, worker.close).start()
    with pytest.raises(WorkerDied):
        worker.call(time.sleep, 1000, timeout=30)
    with pytest.raises(WorkerDied, match="closed"):
        worker.call(square, 1, timeout=30)


def test_script_without_main_guard(worker, tmp_path):
    """A worker does not run the main module of its parent again."""
    script = tmp_path / "script.py"
    root = Path(__file__).parents[2]
    script.write_text(
        f"import sys, os; sys.path.insert(0, {str(root)!r})\n"
        "from pathlib import Path; from qcompile.tune.worker import Worker\n"
        f"worker = Worker(Path({str(tmp_path)!r})); print(worker.call(abs, -3, timeout=30)); worker.close()\n"
    )
    assert subprocess.run([sys.executable, str(script)], capture_output=True, text=True).stdout == "3\n"
