"""Measuring on this machine, with candidates of every kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from qcompile.errors import QCompileError
from qcompile.rpc import machine
from qcompile.rpc.places import Here
from qcompile.targets.select import can_run
from qcompile.targets.target import Target
from qcompile.targets.x86 import ROWS
from qcompile.tune import measurer as measurer_module
from qcompile.tune.local import LocalMeasurer
from qcompile.tune.measure import Batch
from qcompile.tune.timed import TimingMeasurer
from tests.tune.workloads import Sabotage, conv, dense, sabotaged_conv, some_knobs

AVX2 = ROWS[-1]
pytestmark = pytest.mark.skipif(not can_run(AVX2), reason="this CPU cannot run AVX2")


@pytest.fixture(scope="module")
def measurer():
    with LocalMeasurer(AVX2, workers=2) as measurer:
        yield measurer


def measured(measurer, *kinds: str):
    return measurer.measure(sabotaged_conv(), [Sabotage(kind) for kind in kinds], 100_000)


def test_the_machine(measurer):
    assert measurer.cores == os.cpu_count()
    assert measurer.device in Path("/proc/cpuinfo").read_text() or measurer.device == "unknown CPU"


@pytest.mark.parametrize(
    "workload",
    [conv(), conv(residual=True), conv(False), conv(False, residual=True), dense(), dense(False), dense(True, True)],
    ids=["codes", "residual", "float", "float residual", "dense", "float dense", "floats out"],
)
def test_candidates_are_right_and_have_times(measurer, workload):
    knobs = some_knobs(workload, AVX2, 5)
    results = measurer.measure(workload, knobs, 1 << 20)
    assert len(results) == len(knobs)
    for result in results:
        assert result.error == ""
        assert 3 <= len(result.costs) <= 96
        assert all(0 < seconds < 1 for seconds in result.costs)


def test_many_batches_come_in_order(measurer):
    batches = [
        Batch(conv(), some_knobs(conv(), AVX2, 18), 1 << 20),  # more than one library holds
        Batch(conv(), (), 0),
        Batch(dense(), some_knobs(dense(), AVX2, 3), 1 << 20),
        Batch(conv(), some_knobs(conv(), AVX2, 1), 0),
        Batch(conv(), (), 0),
    ]
    results = list(measurer.measure_many(batches))
    assert [len(r) for r in results] == [18, 0, 3, 1, 0]
    assert not [m.error for r in results for m in r if m.error]


def test_two_threads():
    workload = conv(size=56, threads=2)
    with LocalMeasurer(AVX2.with_threads(2), workers=1) as measurer:
        (result,) = measurer.measure(workload, some_knobs(workload, AVX2, 1), 0)
    assert result.costs and not result.error


def test_what_fails_alone(measurer):
    """Each candidate that fails says why; its neighbours in the library are measured."""
    kinds = ["", "wrong", "refused", "does not compile", ""]
    good, wrong, refused, broken, other = measured(measurer, *kinds)
    assert good.costs and other.costs
    assert wrong.error.startswith("wrong result: ") and not wrong.costs
    assert refused.error == "ValueError: no such tile"
    assert broken.error and not broken.costs


def test_crash_costs_one_trial(measurer):
    good, crash, other = measured(measurer, "", "crash", "")
    assert good.costs and other.costs and not crash.costs
    assert crash.error == "measuring failed: the process was ended by SIGABRT"
    assert measured(measurer, "")[0].costs


def test_crash_of_a_builder_costs_one_trial(measurer):
    good, crash, other = measured(measurer, "", "builder crashes", "")
    assert good.costs and other.costs
    assert crash.error == "building failed: the process was ended by SIGABRT"


@pytest.mark.slow
def test_hang_costs_one_trial():
    with TimingMeasurer(AVX2, Here(), 1, patience=5.0) as measurer:
        good, hang, other = measured(measurer, "", "hang", "")
    assert good.costs and other.costs
    assert hang.error == "measuring failed: no answer within 5 s"


@pytest.mark.slow
def test_hang_of_a_builder_costs_one_trial(monkeypatch):
    monkeypatch.setattr(measurer_module, "BUILD_SECONDS", 8.0)
    with LocalMeasurer(AVX2, 1) as measurer:
        good, hang = measured(measurer, "", "builder hangs")
    assert good.costs
    assert hang.error == "building failed: no answer within 8 s"


def test_target_that_this_machine_cannot_run():
    other = Target(**{f: getattr(AVX2, f) for f in AVX2.__slots__} | {"features": ("avx2", "amx-fp64")})
    with pytest.raises(QCompileError, match=r"cannot run code for x86-avx2: it lacks amx-fp64; choose another"):
        LocalMeasurer(other, workers=1)


def foreign(*_) -> None:
    raise RuntimeError("wrong ELF class")


def test_machine_that_cannot_load_our_libraries(monkeypatch):
    monkeypatch.setattr(machine, "ask", foreign)
    with pytest.raises(QCompileError, match="cannot be asked what it is: RuntimeError: wrong ELF class"):
        LocalMeasurer(AVX2, workers=1)


def test_full_disk_is_said_in_words(monkeypatch):
    """No candidate's fault, so no failed measurement."""
    with LocalMeasurer(AVX2, workers=1) as measurer:
        monkeypatch.setattr(measurer, "_folder", Path("/dev/full"))
        with pytest.raises(QCompileError, match="/dev/full: candidates cannot be written: .*; free some space there"):
            measured(measurer, "")


_SESSION = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from pathlib import Path
from qcompile.targets.x86 import ROWS
from qcompile.rpc import machine
from qcompile.tune import measurer as measurer_module
from qcompile.tune.local import LocalMeasurer
from tests.tune.workloads import Sabotage, sabotaged_conv
with LocalMeasurer(ROWS[-1], workers=2) as measurer:
    measurer.measure(sabotaged_conv(), [Sabotage("hang while " + {flag!r}), Sabotage()], 0)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_session_that_is_ended(number, tmp_path):
    """In the middle of a measurement."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    flag = tmp_path / "flag"
    flag.touch()
    session = subprocess.Popen(
        [sys.executable, "-c", _SESSION.format(flag=str(flag))],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    reached = flag.with_name("flag.reached")
    wait(reached.exists)
    workers = psutil.Process(session.pid).children(recursive=True)
    assert len(workers) == 3 and list(temporary.iterdir())
    os.killpg(session.pid, number) if number == signal.SIGINT else session.kill()
    session.wait(60)
    wait(lambda: not any(worker.is_running() for worker in workers) and not list(temporary.iterdir()))
    errors = session.stderr.read().decode()
    assert errors.count("Traceback") == (1 if number == signal.SIGINT else 0), errors


def wait(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
