"""A process that calls functions for us, may crash or hang while it does, and never outlives us.

Functions and arguments travel as pickles over a socket. The process starts anew, without this one's main module, so a
script needs no ``if __name__ == "__main__"`` to use it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from qcompile.errors import QCompileError

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from qcompile.tune.worker import serve; serve()"
_report: Callable[[Any], None] = lambda progress: None  # noqa: E731


class WorkerDied(Exception):
    """The process ended, or was ended because it took too long. progress: what it reported last."""

    def __init__(self, reason: str, progress: Any = None):
        super().__init__(reason)
        self.progress = progress


class Worker:
    """One process, started by its first call and again after it died.

    folder: for its temporary files; removed by the process if this one is killed. environment: variables to set.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] = {}):
        self._environment = {**environment, "TMPDIR": str(folder)}
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._errors: IO[bytes] | None = None  # all that the process prints
        self._closed = False
        self._lock = threading.Lock()  # another thread may close

    def call(self, function: Callable[..., Any], *args: Any, timeout: float) -> Any:
        """``function(*args)`` there; both ends must be able to import the function, and its errors are raised here.

        timeout: seconds without an answer or a report after which the process is ended.
        Raises ``WorkerDied``.
        """
        connection, progress, kind, value = self._started(), None, "", None
        try:
            connection.send((function, args))
            while kind in ("", "progress") and connection.poll(timeout):
                kind, value = connection.recv()
                if kind == "progress":
                    progress = value
        except (EOFError, OSError):
            raise WorkerDied(self._ended(), progress) from None
        except BaseException:  # Ctrl-C: what it answers now must not be taken for the answer to the next call
            self.stop()
            raise
        if kind == "result":
            return value
        if kind == "error":
            if isinstance(value, WorkerDied):  # it lost what it worked with: the next call begins anew
                self.stop()
            raise value
        self.stop()
        raise WorkerDied(f"no answer within {timeout:.0f} s", progress)

    def stop(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            if self._connection is not None:
                self._connection.close()
            if self._errors is not None:
                self._errors.close()
            self._process = self._connection = self._errors = None

    def close(self) -> None:
        self._closed = True
        self.stop()

    def _ended(self) -> str:
        """Why the process ended: by which signal, or with which last words (of Python, if it could not begin)."""
        code, words = 0, ""
        with self._lock:
            if self._process is not None and self._errors is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = self._process.wait(1)
                self._errors.seek(0)
                words = self._errors.read().decode(errors="replace").strip()
        self.stop()
        if code < 0:
            return f"the process was ended by {signal.Signals(-code).name}"
        return f"the process ended: {words.splitlines()[-1]}" if words else "the process ended"

    def _started(self) -> Connection:
        with self._lock:
            if self._closed:
                raise WorkerDied("closed")
            if self._connection is None:
                ours, theirs = socket.socketpair()
                with theirs:
                    command = [
                        sys.executable,
                        "-c",
                        _START,
                        json.dumps(sys.path),
                        str(theirs.fileno()),
                        str(os.getpid()),
                    ]
                    self._errors = tempfile.TemporaryFile()  # noqa: SIM115
                    self._process = subprocess.Popen(
                        command,
                        pass_fds=[theirs.fileno()],
                        env=os.environ | self._environment,
                        stdin=subprocess.DEVNULL,
                        stdout=self._errors,
                        stderr=self._errors,
                    )
                self._connection = Connection(ours.detach())
            return self._connection


def report(progress: Any) -> None:
    """Tells the caller of the function that runs in this worker how far it is."""
    _report(progress)


def serve() -> None:
    """The process: calls what it is sent until the other end is closed."""
    global _report
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; our parent ends us
    connection = Connection(int(sys.argv[2]))
    threading.Thread(target=_follow, args=(int(sys.argv[3]),), daemon=True).start()
    _report = lambda progress: connection.send(("progress", progress))  # noqa: E731
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, args = connection.recv()
            try:
                answer = ("result", function(*args))
            except (QCompileError, OSError, WorkerDied) as error:
                answer = ("error", error)
            except Exception as error:  # of a class that the other end may not have
                answer = ("error", RuntimeError(f"{type(error).__name__}: {error}"))
            connection.send(answer)


def _follow(parent: int) -> None:
    """Ends this process, and its temporary files, soon after its parent was killed, whatever it is busy with."""
    while os.getppid() == parent:
        time.sleep(0.2)
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    os._exit(1)
