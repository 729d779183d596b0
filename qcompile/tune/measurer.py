"""Builds candidates in worker processes, one a core, and measures them in another, while nothing is being built.

A candidate that crashes or hangs costs one trial: what was measured with it is measured again without it, and at the
end it gets one more chance alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from qcompile.errors import QCompileError
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target
from qcompile.tune import machine
from qcompile.tune.arrays import feed_of
from qcompile.tune.builder import Build, Built, build
from qcompile.tune.harness import CANDIDATES
from qcompile.tune.machine import Machine
from qcompile.tune.measure import Batch, Measurement
from qcompile.tune.places import Place
from qcompile.tune.timing import Job, measure
from qcompile.tune.worker import Worker, WorkerDied

_BUILD_SECONDS = 120.0  # for one library
_STEP_SECONDS = 15.0  # for one step of a measurement ...
_SLOWEST = 1e8  # ... and what it takes at so many multiply-accumulates a second
_MEMORY = 256 << 20  # bytes of constants that one library may have, at least where it has several candidates
_FEW = 4  # candidates that are compared in turns, if there are so many
_AHEAD = 2  # libraries built before any is measured, for each worker

_feed = lru_cache(maxsize=16)(feed_of)


@dataclass(frozen=True, slots=True)
class _Part:
    """Candidates of a batch that share a library. batch, members: their numbers in the call, in the batch."""

    batch: int
    workload: Workload
    knobs: tuple[Any, ...]
    footprint: int
    members: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """That one step of its measurement may take, beyond what any may."""
        return self.workload.macs / _SLOWEST


class WorkerMeasurer:
    """A ``qcompile.tune.measure.Measurer``, and a context manager: at its end all processes and files are gone.

    workers: processes that build; the machine's cores if None. patience: seconds for a step of a measurement beside
    what a slow machine needs.

    Raises ``QCompileError`` if ``place`` cannot be reached, or the machine there cannot run the target's code.
    """

    def __init__(
        self, target: Target, place: Place, workers: int | None = None, patience: float = _STEP_SECONDS
    ) -> None:
        self.target, self.place, self.patience = target, place, patience
        self.workers = workers or len(os.sched_getaffinity(0))
        self._temporary = tempfile.TemporaryDirectory(prefix="qcompile-tune-", ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)
        # Threads stay on cores of their own: what the scheduler would do on a machine that is otherwise idle.
        environment = {"TVM_NUM_THREADS": str(max(target.threads, os.cpu_count() or 1)), "TVM_BIND_THREADS": "1"}
        self._runner, *builders = [Worker(self._folder, environment) for _ in range(self.workers + 1)]
        self._builders = tuple(builders)
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for builder in builders:
            self._free.put(builder)
        self._threads = ThreadPoolExecutor(self.workers + 1, "qcompile-tune")
        self._numbers = count()
        try:
            found = self._machine()
            found.check(target)
        except BaseException:
            self.close()
            raise
        self.device, self.cores = found.device, found.cores

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for worker in (self._runner, *self._builders):
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
            futures = [self._threads.submit(self._build, part) for part in chosen]
            for part in chosen:
                _feed(part.workload)  # the oracle computes while they build
            for part, built in zip(chosen, [future.result() for future in futures], strict=True):
                results[part.batch] |= {i: Measurement((), error) for i, error in built.errors.items()}
                for library in built.libraries:
                    results[part.batch] |= self._measure(part, library)
                    library.remove()
                while finished < len(batches) and len(results[finished]) == len(batches[finished].knobs):
                    yield [results[finished][i] for i in range(len(results[finished]))]
                    finished += 1
        yield from ([] for _ in batches[finished:])  # batches of nothing

    def _parts(self, batches: Sequence[Batch]) -> list[_Part]:
        """Large batches in several libraries; a single one in as many as there are workers."""
        parts = []
        for number, batch in enumerate(batches):
            bytes_each = max(batch.workload.weight_bytes, 1)
            size = max(1, min(CANDIDATES, _MEMORY // bytes_each))
            if len(batches) < self.workers:
                size = min(size, max(_FEW, -(-len(batch.knobs) // self.workers)))
            everyone = range(len(batch.knobs))
            parts += [
                _Part(number, batch.workload, batch.knobs, batch.footprint, tuple(everyone[start : start + size]))
                for start in range(0, len(batch.knobs), size)
            ]
        return parts

    def _build(self, part: _Part) -> Build:
        """In a thread of its own: builds with the next worker that is free."""
        worker = self._free.get()

        def call(members: Sequence[int]) -> Build:
            stem = self._folder / f"candidates-{next(self._numbers)}"
            return worker.call(build, part.workload, part.knobs, members, self.target, stem, timeout=_BUILD_SECONDS)

        try:
            try:
                return call(part.members)
            except WorkerDied:
                libraries: list[Built] = []
                errors: dict[int, str] = {}
                for member in part.members:
                    try:
                        alone = call([member])
                        libraries += alone.libraries
                        errors |= alone.errors
                    except WorkerDied as died:
                        errors[member] = f"building failed: {died}"
                return Build(tuple(libraries), errors)
        finally:
            self._free.put(worker)

    def _measure(self, part: _Part, library: Built) -> dict[int, Measurement]:
        step = self.patience + part.seconds
        job = Job(part.workload, library, _feed(part.workload), part.footprint, step * (len(library.members) + 3))

        def call(members: Sequence[int]) -> dict[int, Measurement]:
            return self._runner.call(measure, self.place, job, members, timeout=step + self.place.wait)

        results: dict[int, Measurement] = {}
        together, alone, lost = list(library.members), [], 0
        while together:
            try:
                results |= call(together)
                break
            except WorkerDied as died:
                if died.progress in together:
                    together.remove(died.progress)
                    alone.append(died.progress)
                elif lost:  # no candidate ran alone: any of them may be the cause
                    alone, together = [*alone, *together], []
                else:
                    lost += 1
        for member in alone:
            try:
                results |= call([member])
            except WorkerDied as died:
                results[member] = Measurement((), f"measuring failed: {died}")
        return results

    def _machine(self) -> Machine:
        """All processes start at once; the first that is ready asks."""
        try:
            warm = [
                self._threads.submit(worker.call, machine.loaded, timeout=_BUILD_SECONDS)
                for worker in (self._runner, *self._builders)
            ]
            for future in warm:
                future.result()
            library = self._folder / "reader.so"
            self._builders[0].call(machine.build_reader, self.target.triple, library, timeout=_BUILD_SECONDS)
            limit = self.patience
            return self._runner.call(machine.ask, self.place, library, limit, timeout=limit + self.place.wait)
        except (WorkerDied, RuntimeError) as error:
            raise QCompileError(f"the machine that measures cannot be asked what it is: {error}") from None
