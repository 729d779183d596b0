"""Times candidates in a process that does nothing else, while nothing is being built.

A candidate that crashes or hangs costs one trial: what was measured with it is measured again without it, and at the
end it gets one more chance alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from qcompile.errors import QCompileError
from qcompile.rpc import machine
from qcompile.rpc.machine import Machine
from qcompile.rpc.places import Place
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target
from qcompile.tune.builder import Build, build
from qcompile.tune.measure import Measurement
from qcompile.tune.measurer import BUILD_SECONDS, STEP_SECONDS, Part, WorkerMeasurer, failures, feed
from qcompile.tune.timing import Job, measure
from qcompile.tune.worker import Worker, WorkerDied

_SLOWEST = 1e8  # multiply-accumulates a second: what a step takes beside ``STEP_SECONDS``


class TimingMeasurer(WorkerMeasurer):
    """Measures seconds at a ``place``.

    make: as ``WorkerMeasurer`` has it. timing: measures what it built, as ``timing.measure`` does.

    Raises ``QCompileError`` if it cannot be reached, or the machine there cannot run the target's code.
    """

    def __init__(
        self,
        target: Target | CudaTarget,
        place: Place,
        workers: int | None = None,
        patience: float = STEP_SECONDS,
        make: Callable[..., Build] = build,
        timing: Callable[[Place, Job, Sequence[int]], dict[int, Measurement]] = measure,
    ) -> None:
        # Threads stay on cores of their own: what the scheduler would do on a machine that is otherwise idle.
        environment = {"TVM_NUM_THREADS": str(max(target.threads, os.cpu_count() or 1)), "TVM_BIND_THREADS": "1"}
        super().__init__(target, workers, patience, environment, make)
        self.place, self._timing = place, timing
        self._runner = Worker(self._folder, environment)
        try:
            found = self._machine()
            found.check(target.features, target.name)
        except BaseException:
            self.close()
            raise
        self.device, self.cores = found.device, found.cores

    def close(self) -> None:
        self._runner.close()
        super().close()

    def _prepare(self, part: Part, worker: Worker) -> Build:
        return self._build(part, worker)

    def _measured(self, part: Part, prepared: Build) -> dict[int, Measurement]:
        results = failures(prepared)
        for library in prepared.libraries:
            results |= self._timed(part, library)
            library.remove()
        return results

    def _timed(self, part: Part, library: Any) -> dict[int, Measurement]:
        step = self.patience + _seconds(part.workload)
        job = Job(part.workload, library, feed(part.workload), part.footprint, step * (len(library.members) + 3))

        def call(members: Sequence[int]) -> dict[int, Measurement]:
            return self._runner.call(self._timing, self.place, job, members, timeout=step + self.place.wait)

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
                self._threads.submit(worker.call, machine.loaded, timeout=BUILD_SECONDS)
                for worker in (self._runner, *self._builders)
            ]
            for future in warm:
                future.result()
            library = self._folder / "reader.so"
            self._builders[0].call(machine.build_reader, self.target.triple, library, timeout=BUILD_SECONDS)
            limit = self.patience
            return self._runner.call(machine.ask, self.place, library, limit, timeout=limit + self.place.wait)
        except (WorkerDied, RuntimeError) as error:
            raise QCompileError(f"the machine that measures cannot be asked what it is: {error}") from None


def _seconds(workload: Workload) -> float:
    return workload.macs / _SLOWEST
