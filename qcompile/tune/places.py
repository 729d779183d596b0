"""Where candidates run: in the process that measures, or on a board behind TVM's tracker. Both are RPC sessions."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from qcompile.errors import QCompileError

_PAUSE = 0.2  # seconds between two requests
_INSTALL = "pip install 'qcompile[rpc]'"  # what tracker and server need


@dataclass(frozen=True, slots=True)
class Here:
    """This process, through the same interface as a remote one."""

    wait: ClassVar[float] = 0.0

    @contextmanager
    def session(self, seconds: float) -> Iterator[Any]:
        yield _local_session()


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
        """A session that the server ends after ``seconds``. Raises ``QCompileError`` if no server can be had."""
        try:
            from tvm import rpc
        except ImportError as error:
            raise QCompileError(
                f"TVM's RPC needs {error.name}, which is not installed", remedy=f"pip install {error.name}"
            ) from None
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


Place = Here | Tracker


@cache
def _local_session() -> Any:
    from tvm import rpc

    logging.getLogger("RPCServer").setLevel(logging.WARNING)  # it logs every library that is loaded
    return rpc.LocalSession()
