"""Builds candidates in worker processes, one a core, for whoever measures them."""

from __future__ import annotations

import os
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target
from qcompile.tune.arrays import Feed, feed_of
from qcompile.tune.builder import Build, build
from qcompile.tune.harness import CANDIDATES
from qcompile.tune.measure import Batch, Measurement
from qcompile.tune.record import SECONDS
from qcompile.tune.worker import Worker, WorkerDied

BUILD_SECONDS = 120.0  # for one library
STEP_SECONDS = 15.0  # for one step of a measurement beside what slow machines need
_MEMORY = 256 << 20  # bytes of constants that one library may have, at least where it has several candidates
_FEW = 4  # candidates that are compared in turns, if there are so many
_AHEAD = 2  # libraries built before any is measured, for each worker

_cached = lru_cache(maxsize=16)(feed_of)
_one = threading.Lock()


def feed(workload: Workload) -> Feed:
    """``feed_of``, computed once."""
    with _one:
        return _cached(workload)


@dataclass(frozen=True, slots=True)
class Part:
    """Candidates of a batch that share a library. batch, members: their numbers in the call, in the batch."""

    batch: int
    workload: Workload
    knobs: tuple[Any, ...]
    footprint: int
    members: tuple[int, ...]


class WorkerMeasurer(ABC):
    """A ``qcompile.tune.measure.Measurer``, and a context manager: at its end all processes and files are gone.

    workers: processes that build; the machine's cores if None. patience: seconds for a step of a measurement beside
    what a slow machine needs. environment: variables of the processes. make: libraries of candidates, as
    ``builder.build`` does.

    What builds candidates is here; a subclass sets ``device`` and ``cores``, and measures.
    """

    unit: str = SECONDS
    exact: bool = False
    compilers: tuple[tuple[str, str], ...] = ()
    device: str
    cores: int

    def __init__(
        self,
        target: Target | CudaTarget,
        workers: int | None,
        patience: float,
        environment: Mapping[str, str] = {},
        make: Callable[..., Build] = build,
    ) -> None:
        self.target, self.patience, self._make = target, patience, make
        self.workers = workers or len(os.sched_getaffinity(0))
        self._temporary = tempfile.TemporaryDirectory(prefix="qcompile-tune-", ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)
        self._builders = tuple(Worker(self._folder, environment) for _ in range(self.workers))
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for builder in self._builders:
            self._free.put(builder)
        self._threads = ThreadPoolExecutor(self.workers + 1, "qcompile-tune")
        self._numbers = count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for worker in self._builders:
            worker.close()
        self._threads.shutdown(cancel_futures=True)
        self._temporary.cleanup()

    def measure(self, workload: Workload, knobs: Sequence[Any], footprint: int) -> list[Measurement]:
        """Of one batch alone."""
        (measured,) = self.measure_many([Batch(workload, tuple(knobs), footprint)])
        return measured

    def measure_many(self, batches: Sequence[Batch]) -> Iterator[list[Measurement]]:
        """The measurements of each batch, in order; those of a batch when it has been measured.

        Raises ``QCompileError`` if there is nothing to measure on any more, or no space for libraries.
        """
        results: list[dict[int, Measurement]] = [{} for _ in batches]
        parts = self._parts(batches)
        wave = self.workers * _AHEAD
        finished = 0
        for start in range(0, len(parts), wave):
            chosen = parts[start : start + wave]
            futures = [self._threads.submit(self._prepared, part) for part in chosen]
            for part in chosen:
                feed(part.workload)  # the oracle computes while they build
            for part, prepared in zip(chosen, [future.result() for future in futures], strict=True):
                results[part.batch] |= self._measured(part, prepared)
                while finished < len(batches) and len(results[finished]) == len(batches[finished].knobs):
                    yield [results[finished][i] for i in range(len(results[finished]))]
                    finished += 1
        yield from ([] for _ in batches[finished:])  # batches of nothing

    @abstractmethod
    def _prepare(self, part: Part, worker: Worker) -> Any:
        """What other parts may go on beside: ``_build`` at least. In a thread of its own."""

    @abstractmethod
    def _measured(self, part: Part, prepared: Any) -> dict[int, Measurement]:
        """The measurement of each member, of what ``_prepare`` returned; nothing else is done meanwhile."""

    def _prepared(self, part: Part) -> Any:
        worker = self._free.get()
        try:
            return self._prepare(part, worker)
        finally:
            self._free.put(worker)

    def _parts(self, batches: Sequence[Batch]) -> list[Part]:
        """Large batches in several libraries; a single one in as many as there are workers."""
        parts = []
        for number, batch in enumerate(batches):
            bytes_each = max(batch.workload.weight_bytes, 1)
            size = max(1, min(CANDIDATES, _MEMORY // bytes_each))
            if len(batches) < self.workers:
                size = min(size, max(_FEW, -(-len(batch.knobs) // self.workers)))
            everyone = range(len(batch.knobs))
            parts += [
                Part(number, batch.workload, batch.knobs, batch.footprint, tuple(everyone[start : start + size]))
                for start in range(0, len(batch.knobs), size)
            ]
        return parts

    def _build(self, part: Part, worker: Worker) -> Build:
        """Libraries of its candidates; one that crashes or hangs the builder costs one trial."""

        def call(members: Sequence[int]) -> Build:
            stem = self._folder / f"candidates-{next(self._numbers)}"
            return worker.call(self._make, part.workload, part.knobs, members, self.target, stem, timeout=BUILD_SECONDS)

        try:
            return call(part.members)
        except WorkerDied:
            libraries: list[Any] = []
            errors: dict[int, str] = {}
            for member in part.members:
                try:
                    alone = call([member])
                    libraries += alone.libraries
                    errors |= alone.errors
                except WorkerDied as died:
                    errors[member] = f"building failed: {died}"
            return Build(tuple(libraries), errors)


def failures(built: Build) -> dict[int, Measurement]:
    """Of candidates that could not be built."""
    return {member: Measurement((), error) for member, error in built.errors.items()}
