"""Servers and trackers that are not there, not free, or something else."""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from qcompile.errors import QCompileError
from qcompile.rpc.places import Server, Tracker
from tests.rpc.farm import Farm, free_port


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    farm = Farm(tmp_path_factory.mktemp("farm"))
    yield farm
    farm.close()


def assert_refused(place: Server | Tracker, expected: str) -> None:
    with pytest.raises(QCompileError, match=expected), place.session(1):
        pass


def test_no_free_server_of_a_tracker(farm):
    farm.servers("another")
    expected = (
        rf"RPC tracker 127.0.0.1:{farm.port} has had no free server of key 'none' for 1 s; start one there: pip install"
        rf".* && python -m tvm.exec.rpc_server --tracker 127.0.0.1:{farm.port} --key none"
    )
    assert_refused(Tracker("127.0.0.1", farm.port, "none", wait=1.0), expected)


def test_no_tracker():
    port = free_port()
    expected = (
        rf"127.0.0.1:{port}: no RPC tracker answers: Connection refused; start one: .*rpc_tracker .*--port {port}"
    )
    assert_refused(Tracker("127.0.0.1", port, "board"), expected)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tvm.rpc", None)
    monkeypatch.delattr("tvm.rpc")
    assert_refused(
        Tracker("127.0.0.1", free_port(), "board"), "TVM's RPC needs .*, which is not installed; pip install"
    )


def test_a_server_serves_one_after_the_other(farm):
    port = farm.server()
    with Server("127.0.0.1", port).session(0) as session:
        assert session.get_function("runtime.NumThreads")() > 0
        assert_refused(
            Server("127.0.0.1", port, wait=1.0),
            f"127.0.0.1:{port}: the RPC server did not answer within 1 s; another may be using it",
        )
    del session
    with Server("127.0.0.1", port).session(0) as session:
        assert session.get_function("runtime.NumThreads")() > 0


def test_no_server():
    port = free_port()
    expected = f"127.0.0.1:{port}: no RPC server answers: Connection refused; start one there: .*rpc_server .*{port}"
    assert_refused(Server("127.0.0.1", port), expected)


def test_something_else_answers():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request")

        threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        assert_refused(Server("127.0.0.1", port), "something answers that is no RPC server of TVM")
