"""Times the candidates of one cubin on a GPU, and compares each one's result with the oracle's.

Runs in a worker process; what it does is the same with this machine's driver and with one behind RPC. A candidate's
launches are a CUDA graph, so that nothing but the GPU is timed; each reads its weights from the next of several copies,
as in a network that has walked through all others since, and its activations where they were left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from qcompile.errors import QCompileError
from qcompile.runtime.driver import SHARED, Driver
from qcompile.targets.cuda.templates import stored
from qcompile.tune.arrays import difference
from qcompile.tune.builder import reason
from qcompile.tune.gpu_builder import BuiltKernels, Candidate
from qcompile.tune.measure import Measurement
from qcompile.tune.timing import HOPELESS, Job, reduced
from qcompile.tune.worker import WorkerDied, report

Opened = Callable[[Any, float], Any]  # place, seconds -> a context manager of a ``Driver``
_FIRST, _ROUNDS, _LEAST = 3, 10, 0.012  # rounds of the first look, and of the second; its seconds of a candidate
_MOST_ROUNDS = 256
_GRAPH, _MOST_LAUNCHES = 2e-4, 200  # seconds that a graph should take, for events to be exact; launches in it
_MOST_COPIES = 64  # of weights
_SLACK, _POISON = 256, 0xA5


def measure(opened: Opened, place: Any, job: Job, only: Sequence[int]) -> dict[int, Measurement]:
    """Measurements of ``only`` of the cubin's members. opened: what gives the driver at a place.

    Reports the member that runs alone, None while several do. Raises ``WorkerDied`` when the GPU is lost: after a
    kernel that failed, nothing works in this process any more.
    """
    candidates = job.built.by_member
    with opened(place, job.limit) as driver, _bench(driver, job) as bench:
        errors: dict[int, str] = {}
        good: list[int] = []
        for member in only:
            report(member)
            error = _alive(partial(bench.check, candidates[member]), member)
            if error:
                errors[member] = error
            else:
                good.append(member)
        report(None)
        times = _alive(partial(bench.time, {member: candidates[member] for member in good}), None) if good else {}
    measured = {member: Measurement(tuple(seconds)) for member, seconds in times.items()}
    return measured | {member: Measurement((), error) for member, error in errors.items()}


def _alive(step: Callable[[], Any], progress: int | None) -> Any:
    try:
        return step()
    except QCompileError as error:
        raise WorkerDied(f"the GPU was lost: {reason(error)}", progress) from None


@contextmanager
def _bench(driver: Driver, job: Job) -> Iterator[_Bench]:
    bench = _Bench(driver, job)
    try:
        yield bench
    finally:
        with suppress(QCompileError):  # of a GPU that is lost
            bench.close()


class _Bench:
    """The machine code and its arrays in the GPU's memory."""

    def __init__(self, driver: Driver, job: Job):
        built: BuiltKernels = job.built
        self.driver, self.workload, self.feed = driver, job.workload, job.feed
        self._memory: list[int] = []
        self._graphs: list[int] = []
        self.stream = driver.stream()
        self._module = driver.load(built.library.read_bytes())
        w, feed = job.workload, job.feed
        self._out = stored(w.out)
        self._x = self._on_gpu(stored(w.x).store(w.x.view(feed.x)))
        residual = [] if w.residual is None else [stored(w.residual).store(w.residual.view(feed.residual))]
        self._y = self._allocate(self._out.nbytes)
        self._rest = [*map(self._on_gpu, residual), self._y]
        with np.load(built.constants) as arrays:
            constants = [np.ascontiguousarray(arrays[name]) for name in arrays.files]
        largest = max(1, sum(constants[i].nbytes for i in built.candidates[0].constants))
        copies = min(_MOST_COPIES, max(1, -(-job.footprint // largest)))
        self._copies = [[self._on_gpu(array) for array in constants] for _ in range(copies)]

    def close(self) -> None:
        for graph in self._graphs:
            self.driver.destroy_graph(graph)
        for pointer in self._memory:
            self.driver.free(pointer)
        self.driver.unload(self._module)

    def check(self, candidate: Candidate) -> str:
        """What is wrong with the candidate's result; "" if it is right."""
        driver, flat = self.driver, np.full(self._out.nbytes, _POISON, np.uint8)
        driver.to_device(self._y, flat.ctypes.data, flat.nbytes, self.stream)
        driver.wait(self.stream)
        try:
            launch = self._launcher(candidate)
        except QCompileError as error:  # more shared memory than this GPU has, say
            return reason(error)
        launch(0)
        driver.to_host(flat.ctypes.data, self._y, flat.nbytes, self.stream)
        driver.wait(self.stream)
        logical = self._out.values(flat.view(self._out.bits))
        return difference(self.workload, self.workload.out.store(logical), self.feed.want)

    def time(self, candidates: dict[int, Candidate]) -> dict[int, list[float]]:
        """Seconds of one launch of each, in the order in which they were taken; candidates take turns."""
        graphs = {member: self._graph(candidate) for member, candidate in candidates.items()}
        times = self._look(graphs, _FIRST)
        best = min(min(seconds) for seconds in times.values())
        near = {m: graph for m, graph in graphs.items() if min(times[m]) <= HOPELESS * best}
        turn = best * min(count for _, count in near.values())
        rounds = min(_MOST_ROUNDS, max(_ROUNDS, math.ceil(_LEAST / turn)))
        return times | {member: reduced(seconds) for member, seconds in self._look(near, rounds).items()}

    def _look(self, graphs: dict[int, tuple[int, int]], rounds: int) -> dict[int, list[float]]:
        driver, stream = self.driver, self.stream
        first, last = driver.event(), driver.event()
        times: dict[int, list[float]] = {member: [] for member in graphs}
        for _ in range(rounds):
            for member, (graph, count) in graphs.items():
                driver.launch_graph(graph, stream)  # what is timed waits behind it, already on the GPU
                driver.record(first, stream)
                driver.launch_graph(graph, stream)
                driver.record(last, stream)
                driver.wait(stream)
                times[member].append(max(driver.microseconds(first, last), 1e-3) / count / 1e6)
        driver.destroy_event(first)
        driver.destroy_event(last)
        return times

    def _graph(self, candidate: Candidate) -> tuple[int, int]:
        """The launches of a candidate as a graph, and how many they are."""
        once = self._captured(candidate, 1)
        ((seconds, *_),) = self._look({0: (once, 1)}, 1).values()
        count = max(1, min(_MOST_LAUNCHES, math.ceil(_GRAPH / seconds)))
        return self._captured(candidate, count), count

    def _captured(self, candidate: Candidate, count: int) -> int:
        launch = self._launcher(candidate)
        self.driver.begin_capture(self.stream)
        for i in range(count):
            launch(i)
        graph = self.driver.end_capture(self.stream)
        self._graphs.append(graph)
        return graph

    def _launcher(self, candidate: Candidate) -> Callable[[int], None]:
        """What launches it on the copy of that number."""
        driver = self.driver
        function = driver.function(self._module, candidate.name)
        if candidate.shared > SHARED:
            driver.allow_shared(function, candidate.shared)
        shape = (candidate.grid, candidate.block, candidate.shared)

        def launch(i: int) -> None:
            weights = self._copies[i % len(self._copies)]
            arguments = [self._x, *(weights[number] for number in candidate.constants), *self._rest]
            driver.launch(function, *shape, self.stream, arguments)

        return launch

    def _on_gpu(self, array: np.ndarray) -> int:
        pointer = self._allocate(array.nbytes)
        self.driver.to_device(pointer, array.ctypes.data, array.nbytes, self.stream)
        self.driver.wait(self.stream)
        return pointer

    def _allocate(self, size: int) -> int:
        self._memory.append(self.driver.allocate(size + _SLACK))
        return self._memory[-1]
