"""Artifacts on a server of TVM, on this machine."""

from __future__ import annotations

import gc
import platform

import numpy as np
import pytest

from qcompile.errors import QCompileError
from qcompile.rpc.places import Server
from qcompile.rpc.runner import RemoteRunner
from qcompile.targets import arm
from tests.emulation import skip_without
from tests.rpc.farm import Farm
from tests.runtime import handmade

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the handmade library is for x86-64")
X = np.linspace(-3, 3, 64, dtype=np.float32).reshape(handmade.SHAPE)


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    farm = Farm(tmp_path_factory.mktemp("farm"))
    yield farm
    farm.close()


@pytest.fixture(scope="module")
def server(farm) -> Server:
    return Server("127.0.0.1", farm.server())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return handmade.build(tmp_path_factory.mktemp("built") / "out").path


def refusal(function, *arguments) -> str:
    with pytest.raises(QCompileError) as caught:
        function(*arguments)
    message = str(caught.value)
    del caught
    gc.collect()  # the traceback's frames refer to the session
    return message


def test_results_are_those_of_this_process(server, built):
    with RemoteRunner(built, server) as remote:
        assert [t.name for t in (*remote.inputs, *remote.outputs)] == ["x", "y"]
        for x in (X, 2 * X):
            np.testing.assert_array_equal(remote.run({"x": x})["y"], x + handmade.WEIGHTS)
        assert refusal(remote.run, {"z": X}) == "the model has no input 'z'; (one of: x)"
        assert refusal(remote.run, {"x": X[:, 1:]}) == "input x: shape (1, 63), the model has (1, 64)"


def test_parallel_loops(server, tmp_path):
    """On as many threads as the server has."""
    path = handmade.build(tmp_path / "out", threads=2).path
    with RemoteRunner(path, server) as remote:
        np.testing.assert_array_equal(remote.run({"x": X})["y"], X + handmade.WEIGHTS)


def test_a_machine_that_cannot_run_it_is_named(server, tmp_path):
    path = handmade.build(tmp_path / "out", features=("avx2", "sse5")).path
    assert "cannot run code for x86-avx2: it lacks sse5" in refusal(RemoteRunner, path, server)


def test_another_architecture_is_named(server, tmp_path):
    skip_without(arm.ROWS[-1])
    path = handmade.build(tmp_path / "out", triple=arm.ROWS[-1].triple).path
    expected = "the code is for aarch64, and the machine is x86_64; name another machine, or another target"
    assert refusal(RemoteRunner, path, server) == expected


@pytest.mark.slow
def test_a_lost_connection_is_said(farm, built):
    port = farm.server()
    with RemoteRunner(built, Server("127.0.0.1", port)) as remote:
        farm.kill(farm.processes[-1])
        assert refusal(remote.run, {"x": X}).startswith("running it over RPC failed: ")
