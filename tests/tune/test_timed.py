"""Measuring through TVM's own tracker and servers, on this machine; servers die at the worst moments."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from qcompile.rpc.places import Tracker
from qcompile.targets.select import can_run
from qcompile.targets.x86 import ROWS
from qcompile.tune.timed import TimingMeasurer
from tests.rpc.farm import Farm, wait
from tests.tune.workloads import Sabotage, conv, sabotaged_conv, some_knobs

AVX2 = ROWS[-1]
pytestmark = pytest.mark.skipif(not can_run(AVX2), reason="this CPU cannot run AVX2")


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    farm = Farm(tmp_path_factory.mktemp("farm"))
    yield farm
    farm.close()


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
