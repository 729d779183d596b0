"""Timing contenders fairly on a noisy machine: in turns, in short blocks, so that all meet the same disturbances."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

import numpy as np

from qcompile.bench.contenders import Call, Contender
from qcompile.errors import QCompileError

BLOCK = 0.05  # seconds that a contender runs before the next one's turn
MIN_CALLS = 3  # in a block; its first call, which finds the caches full of another's data, is not counted
WARMUP = 0.2  # seconds


class Measurable(Protocol):
    """A ``Contender`` or a ``Peak``: hashable, and small enough to be sent to another process, which opens it."""

    @property
    def label(self) -> str: ...
    @property
    def threads(self) -> int: ...
    def open(self) -> Call: ...


M = TypeVar("M", bound=Measurable)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one call, over ``calls`` calls."""

    median: float
    minimum: float
    p99: float
    calls: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Latency:
        times = np.asarray(seconds)
        return Latency(float(np.median(times)), float(times.min()), float(np.quantile(times, 0.99)), len(times))


def measure(contenders: Sequence[M], duration: float = 2.0) -> dict[M, Latency]:
    """Latency of each contender, from about ``duration`` seconds of calls of each.

    One thread: all in this process. More: each in a process of its own, because the idle threads of one library would
    spin on the cores that another needs.
    """
    with ExitStack() as stack:
        if all(c.threads == 1 for c in contenders):
            blocks: list[Callable[[float], list[float]]] = [_here(c.open()) for c in contenders]
        else:
            blocks = [stack.enter_context(_elsewhere(c)) for c in contenders]
        times = in_turns(blocks, duration)
    return {c: Latency.of(t) for c, t in zip(contenders, times, strict=True)}


def in_turns(blocks: Sequence[Callable[[float], list[float]]], duration: float) -> list[list[float]]:
    """Runs every block in turn until each has run for ``duration``; a block takes seconds and gives times of calls."""
    for block in blocks:
        block(min(WARMUP, duration))
    times: list[list[float]] = [[] for _ in blocks]
    for _ in range(max(1, round(duration / BLOCK))):
        for block, seen in zip(blocks, times, strict=True):
            seen += block(BLOCK)
    return times


def timed_block(call: Call, seconds: float) -> list[float]:
    """Times of single calls for ``seconds``, in seconds, the first left out; the garbage collector waits."""
    clock = time.perf_counter
    times: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        call()
        end = clock() + seconds
        while len(times) < MIN_CALLS or clock() < end:
            start = clock()
            call()
            times.append(clock() - start)
    finally:
        if collecting:
            gc.enable()
    return times


def _here(call: Call) -> Callable[[float], list[float]]:
    return lambda seconds: timed_block(call, seconds)


@contextlib.contextmanager
def _elsewhere(contender: Measurable) -> Iterator[Callable[[float], list[float]]]:
    """The contender in a new process, which sleeps between its blocks."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(contender, theirs), daemon=True)
    process.start()
    theirs.close()

    def block(seconds: float) -> list[float]:
        try:
            ours.send(seconds)
            answer = ours.recv()
        except (EOFError, OSError):
            raise QCompileError("its process ended while it was measured", node=contender.label) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    try:
        yield block
    finally:
        ours.close()
        process.join(5)
        process.kill()


def _serve(contender: Measurable, pipe: Connection) -> None:
    """The other process: a request is a number of seconds, the answer a list of times or the error."""
    call: Any = None
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            seconds = pipe.recv()
            try:
                call = call or contender.open()
                answer: Any = timed_block(call, seconds)
            except QCompileError as error:
                answer = error
            except Exception as error:
                answer = QCompileError(f"{type(error).__name__}: {error}", node=contender.label)
            pipe.send(answer)


def ratios(latencies: Mapping[Contender, Latency]) -> dict[Contender, float]:
    """Median of each contender over the fastest contender's."""
    fastest = min(latency.median for latency in latencies.values())
    return {contender: latency.median / fastest for contender, latency in latencies.items()}
