"""Measuring through TVM's own tracker and servers, on this machine; servers die at the worst moments."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tvm import rpc

from qcompile.errors import QCompileError
from qcompile.rpc.places import Tracker
from qcompile.targets.select import can_run
from qcompile.targets.x86 import ROWS
from qcompile.tune.timed import TimingMeasurer
from tests.tune.workloads import Sabotage, conv, sabotaged_conv, some_knobs

AVX2 = ROWS[-1]
pytestmark = pytest.mark.skipif(not can_run(AVX2), reason="this CPU cannot run AVX2")


class Farm:
    """A tracker and servers, each in processes of its own."""

    def __init__(self, folder: Path):
        self.folder, self.processes, self.port = folder, [], free_port()
        self._start("tvm.exec.rpc_tracker", "--port", str(self.port), "--port-end", str(self.port + 1))
        wait(lambda: answers(self.port))

    def servers(self, key: str, count: int = 1) -> list[subprocess.Popen]:
        """Registered when this returns."""
        before = self.registered(key)
        started = []
        for port in (free_port() for _ in range(count)):
            ports = ["--port", str(port), "--port-end", str(port + 1)]
            place = ["--tracker", f"127.0.0.1:{self.port}", "--key", key]
            started.append(self._start("tvm.exec.rpc_server", *place, *ports))
        wait(lambda: self.registered(key) == before + count)
        return started

    def registered(self, key: str) -> int:
        """Servers that are free."""
        tracker = rpc.connect_tracker("127.0.0.1", self.port)
        queues = tracker.summary()["queue_info"]
        tracker.close()
        return queues.get(key, {"free": 0})["free"]

    def _start(self, module: str, *args: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--host", "127.0.0.1", "--silent", *args],
            start_new_session=True,
            env=os.environ | {"TMPDIR": str(self.folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen) -> None:
        """With all its children, as a power cut would."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                self.kill(process)


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    farm = Farm(tmp_path_factory.mktemp("farm"))
    yield farm
    farm.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def measurer(farm: Farm, key: str, **options) -> TimingMeasurer:
    return TimingMeasurer(AVX2, Tracker("127.0.0.1", farm.port, key, **options), workers=1)


def test_a_board_measures(farm):
    farm.servers("board")
    with measurer(farm, "board") as remote:
        assert remote.cores == os.cpu_count()
        for _ in range(2):  # a new session each time
            results = remote.measure(conv(), some_knobs(conv(), AVX2, 4), 1 << 20)
            assert len(results) == 4
            assert all(result.costs and not result.error for result in results)
        good, wrong = remote.measure(sabotaged_conv(), [Sabotage(), Sabotage("wrong")], 0)
        assert good.costs and wrong.error.startswith("wrong result: ")


def test_server_that_dies_in_a_measurement(farm, tmp_path):
    """Another server takes over: nothing is lost, neither what had been measured nor what was under way."""
    (first,) = farm.servers("weak")
    flag = tmp_path / "flag"
    flag.touch()
    candidates = [Sabotage(), Sabotage(f"hang while {flag}"), Sabotage()]
    with measurer(farm, "weak") as remote, ThreadPoolExecutor(1) as thread:
        future = thread.submit(remote.measure, sabotaged_conv(), candidates, 0)
        wait(flag.with_name("flag.reached").exists)
        flag.unlink()
        farm.kill(first)
        farm.servers("weak")
        results = future.result(60)
    assert all(result.costs and not result.error for result in results)


def test_candidate_that_kills_servers(farm):
    """It costs the server that tries it first and the one that tries it again, and one trial."""
    farm.servers("many", 3)
    with measurer(farm, "many") as remote:
        good, crash, other = remote.measure(sabotaged_conv(), [Sabotage(k) for k in ("", "crash", "")], 0)
        assert good.costs and other.costs
        assert crash.error.startswith("measuring failed: the session was lost: ")
        assert remote.measure(sabotaged_conv(), [Sabotage()], 0)[0].costs


def test_no_server(farm):
    farm.servers("another")
    expected = (
        rf"RPC tracker 127.0.0.1:{farm.port} has had no free server of key 'none' for 1 s; start one there: pip install"
        rf".* && python -m tvm.exec.rpc_server --tracker 127.0.0.1:{farm.port} --key none"
    )
    with pytest.raises(QCompileError, match=expected):
        measurer(farm, "none", wait=1.0)


def test_no_tracker():
    port = free_port()
    expected = (
        rf"127.0.0.1:{port}: no RPC tracker answers: Connection refused; start one: .*rpc_tracker .*--port {port}"
    )
    with pytest.raises(QCompileError, match=expected):
        TimingMeasurer(AVX2, Tracker("127.0.0.1", port, "board"), workers=1)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tvm.rpc", None)
    monkeypatch.delattr("tvm.rpc")
    place = Tracker("127.0.0.1", free_port(), "board")
    with (
        pytest.raises(QCompileError, match="TVM's RPC needs .*, which is not installed; pip install"),
        place.session(1),
    ):
        pass
