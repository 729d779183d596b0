"""Turns, times and processes of a measurement."""

from __future__ import annotations

import gc
import platform

import numpy as np
import pytest

from qcompile.bench import interleave
from qcompile.bench.contenders import Contender
from qcompile.bench.interleave import Latency, in_turns, measure, ratios, timed_block
from qcompile.errors import QCompileError
from tests.runtime import handmade

needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the handmade library is for x86-64")
FEED = {"x": np.zeros((1, 64), np.float32)}


def test_latency_of_known_times():
    latency = Latency.of([3.0, 1.0, 2.0] + [2.0] * 97)
    assert (latency.median, latency.minimum, latency.calls) == (2.0, 1.0, 100)
    assert 2.0 < latency.p99 < 3.0


def test_blocks_take_turns():
    order = []

    def block(name: str):
        def run(seconds: float) -> list[float]:
            order.append((name, seconds))
            return [float(len(order))]

        return run

    times = in_turns([block("a"), block("b")], 3 * interleave.BLOCK)
    warm, rest = order[:2], order[2:]
    assert [name for name, _ in warm] == ["a", "b"]
    assert rest == [("a", interleave.BLOCK), ("b", interleave.BLOCK)] * 3
    assert times == [[3.0, 5.0, 7.0], [4.0, 6.0, 8.0]]


def test_first_call_of_a_block_is_not_counted():
    calls = []
    times = timed_block(lambda: calls.append(gc.isenabled()), 0.0)
    assert len(times) == len(calls) - 1 == interleave.MIN_CALLS
    assert not any(calls) and gc.isenabled()


def test_garbage_collection_returns_after_an_error():
    with pytest.raises(ZeroDivisionError):
        timed_block(lambda: 1 / 0, 0.0)
    assert gc.isenabled()


def test_ratios_are_to_the_fastest(tmp_path):
    a, b = Contender("qcompile", "int8", tmp_path), Contender("openvino", "int8", tmp_path)
    assert ratios({a: Latency(3.0, 1, 1, 1), b: Latency(2.0, 1, 1, 1)}) == {a: 1.5, b: 1.0}


@needs_x86
@pytest.mark.parametrize("threads", [1, 2])
def test_measures_a_built_model(tmp_path, threads):
    """Here, and in a process of its own."""
    out = handmade.build(tmp_path / "out", threads=threads).path
    contender = Contender("qcompile", "int8", out, threads, FEED)
    latency = measure([contender], 0.05)[contender]
    assert 0 < latency.minimum <= latency.median <= latency.p99 < 1
    assert latency.calls >= interleave.MIN_CALLS


@needs_x86
def test_errors_of_the_other_process_come_back(tmp_path):
    contender = Contender("qcompile", "int8", tmp_path / "no", 2, FEED)
    with pytest.raises(QCompileError) as caught:
        measure([contender], 0.05)
    assert str(caught.value) == f"{tmp_path}/no: no such folder; give a folder made by 'qcompile build'"


@needs_x86
def test_threads_must_be_those_of_the_build(tmp_path):
    out = handmade.build(tmp_path / "out").path
    with pytest.raises(QCompileError) as caught:
        Contender("qcompile", "int8", out, 2, FEED).open()
    assert str(caught.value) == f"{out}: built for 1 threads, not 2; build it with --threads 2"
