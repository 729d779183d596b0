"""Measures executed instructions of code for ARM machines, under QEMU on this one."""

from __future__ import annotations

import platform
from functools import partial

from qcompile.errors import QCompileError
from qcompile.runtime.counting import check_counting
from qcompile.runtime.emulate import launcher
from qcompile.runtime.executable import runner_for
from qcompile.targets.target import Target
from qcompile.tune.builder import build
from qcompile.tune.counting import CountingJob, count, counting_harness
from qcompile.tune.measure import Measurement
from qcompile.tune.measurer import BUILD_SECONDS, STEP_SECONDS, Part, WorkerMeasurer, failures, feed
from qcompile.tune.record import INSTRUCTIONS
from qcompile.tune.worker import Worker, WorkerDied

_SLOWEST = 1e7  # multiply-accumulates a second under the emulator, of float32 with few lanes
_ARCH = "aarch64"  # whose stamps the plugin knows


class CountingMeasurer(WorkerMeasurer):
    """One measurement of a candidate is enough, and other processes do not disturb it.

    Raises ``QCompileError`` if instructions of the target cannot be counted here.
    """

    unit = INSTRUCTIONS
    exact = True

    def __init__(self, target: Target, workers: int | None = None, patience: float = STEP_SECONDS) -> None:
        arch = target.triple.split("-")[0]
        if arch == platform.machine():
            raise QCompileError(
                f"this machine runs code for {target.name} itself, and times say more than counts",
                node="--runner icount",
                remedy="leave it out",
            )
        if arch != _ARCH:
            raise QCompileError(
                f"instructions are counted of ARM code only, not for {target.name}",
                node="--runner icount",
                remedy="measure on such a machine, over RPC",
            )
        words = launcher(target.triple, target.features)
        self._command = (*words, str(runner_for(target.triple)))
        check_counting(words[0])
        super().__init__(target, workers, patience, make=partial(build, frame=counting_harness))
        self.device, self.cores = f"QEMU {words[-1]}", 1

    def _prepare(self, part: Part, worker: Worker) -> dict[int, Measurement]:
        built = self._build(part, worker)
        results = failures(built)
        limit = self.patience + part.workload.macs / _SLOWEST
        for library in built.libraries:
            job = CountingJob(part.workload, library, feed(part.workload), self._command, limit)
            members = len(library.members)
            try:
                results |= worker.call(count, job, timeout=BUILD_SECONDS + limit * (3 * members + 1))
            except WorkerDied as died:
                results |= dict.fromkeys(library.members, Measurement((), f"measuring failed: {died}"))
            library.remove()
        return results

    def _measured(self, part: Part, prepared: dict[int, Measurement]) -> dict[int, Measurement]:
        return prepared
