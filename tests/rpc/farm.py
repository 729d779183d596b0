"""TVM's own tracker and servers, each in processes of its own on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tvm import rpc


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

    def server(self) -> int:
        """The port of one that belongs to no tracker."""
        port = free_port()
        self._start("tvm.exec.rpc_server", "--port", str(port), "--port-end", str(port + 1))
        wait(lambda: answers(port))
        return port

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
