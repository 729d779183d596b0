"""Where code runs that is built here: this process, a server, or any free server of a tracker. All are RPC sessions."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from qcompile.errors import QCompileError

_PAUSE = 0.2  # seconds between two requests
_INSTALL = "pip install 'qcompile[rpc]'"  # what tracker and server need
_ALL_CORES = 1  # tvm::runtime::threading::ThreadGroup::kBig


@dataclass(frozen=True, slots=True)
class Here:
    """This process, through the same interface as a remote one."""

    wait: ClassVar[float] = 0.0

    @contextmanager
    def session(self, seconds: float) -> Iterator[Any]:
        yield _local_session()


@dataclass(frozen=True, slots=True)
class Server:
    """One server; it serves one client at a time, each in a new process.

    wait: seconds that it may take until it is free.
    """

    host: str
    port: int
    wait: float = 60.0

    @contextmanager
    def session(self, seconds: float) -> Iterator[Any]:
        """A session that the server ends after ``seconds``, if not 0. Raises ``QCompileError`` if it cannot be had."""
        rpc, where = _rpc(), f"{self.host}:{self.port}"
        start = f"start one there: {_INSTALL} && python -m tvm.exec.rpc_server --host 0.0.0.0 --port {self.port}"
        try:
            with socket.create_connection((self.host, self.port), self.wait):  # TVM would go on trying for a minute
                pass
            session = _within(self.wait, lambda: rpc.connect(self.host, self.port, session_timeout=seconds))
        except TimeoutError:
            raise QCompileError(
                f"the RPC server did not answer within {self.wait:g} s", node=where, remedy="another may be using it"
            ) from None
        except OSError as error:
            raise QCompileError(f"no RPC server answers: {error.strerror or error}", node=where, remedy=start) from None
        except RuntimeError:
            raise QCompileError(
                "something answers that is no RPC server of TVM, or one with a key",
                node=where,
                remedy=f"name its tracker (--rpc-tracker, --rpc-key), or {start}",
            ) from None
        yield session


@dataclass(frozen=True, slots=True)
class Tracker:
    """Any server that is registered as ``key``; a new process there for each session.

    wait: seconds that it may take until a server is free.
    """

    host: str
    port: int
    key: str
    wait: float = 60.0

    @contextmanager
    def session(self, seconds: float) -> Iterator[Any]:
        """As of a ``Server``. Raises ``QCompileError`` if no server can be had."""
        rpc = _rpc()
        end = time.monotonic() + self.wait
        while True:
            try:
                session = self._request(rpc, end - time.monotonic(), seconds)
                break
            except RuntimeError:  # none is free, or the one that was has just died
                if time.monotonic() >= end - _PAUSE:
                    raise self._no_server() from None
                time.sleep(_PAUSE)
        yield session

    def _request(self, rpc: Any, patience: float, seconds: float) -> Any:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(max(patience, _PAUSE))  # TVM would wait for ever
        try:
            with socket.create_connection((self.host, self.port)):  # TVM would go on trying for a minute
                pass
            with contextlib.closing(rpc.connect_tracker(self.host, self.port)) as tracker:
                return tracker.request(self.key, session_timeout=seconds, max_retry=1)
        except OSError as error:
            raise QCompileError(
                f"no RPC tracker answers: {error.strerror or error}",
                node=f"{self.host}:{self.port}",
                remedy=f"start one: {_INSTALL} && python -m tvm.exec.rpc_tracker --host 0.0.0.0"
                f" --port {self.port} --port-end {self.port + 1}",
            ) from None
        finally:
            socket.setdefaulttimeout(before)

    def _no_server(self) -> QCompileError:
        where = f"{self.host}:{self.port}"
        return QCompileError(
            f"RPC tracker {where} has had no free server of key '{self.key}' for {self.wait:g} s",
            remedy=f"start one there: {_INSTALL} && python -m tvm.exec.rpc_server --tracker {where} --key {self.key}",
        )


Place = Here | Server | Tracker


def use_threads(session: Any, threads: int) -> int:
    """Lets parallel loops run on ``threads`` there; returns how many they really have, which may be fewer."""
    if threads == 1:
        return 1
    session.get_function("runtime.config_threadpool")(_ALL_CORES, threads)
    return min(session.get_function("runtime.NumThreads")(), threads)


@cache
def _local_session() -> Any:
    from tvm import rpc

    logging.getLogger("RPCServer").setLevel(logging.WARNING)  # it logs every library that is loaded
    return rpc.LocalSession()


def _rpc() -> Any:
    try:
        from tvm import rpc
    except ImportError as error:
        raise QCompileError(
            f"TVM's RPC needs {error.name}, which is not installed", remedy=f"pip install {error.name}"
        ) from None
    return rpc


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """What the function returns or raises; ``TimeoutError`` if it takes longer, and it is left alone."""
    answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def call() -> None:
        try:
            answers.put((function(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result
