"""Times the candidates of one library on a session, and compares each one's result with the oracle's.

Runs in a worker process; what it does is the same on this machine and on a board.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from qcompile.errors import QCompileError
from qcompile.rpc.machine import load
from qcompile.rpc.places import Place, use_threads
from qcompile.targets.kernels.workload import Workload
from qcompile.tune.arrays import Feed, difference
from qcompile.tune.builder import reason
from qcompile.tune.harness import MAIN, SPREAD, Layout, elements, padded
from qcompile.tune.measure import Measurement
from qcompile.tune.worker import WorkerDied, report

HOPELESS = 3.0  # times the fastest: not looked at again
_FIRST = 3  # rounds of the first look
_RUNS, _SECONDS = 10, 0.012  # of each candidate in the second look, at least
_BATCH_SECONDS, _BATCH_RUNS = 1.0, 4  # slow kernels run less often, but this often
_MOST_ROUNDS, _ROUNDS = 1024, 256  # in all, and of one call
_INTERVAL = 2e-6  # seconds between two stamps, at least
_TIMINGS = 32  # kept of one look: more are reduced to medians of neighbours
_NOISY, _NEAR, _AGAIN = 0.10, 1.20, 2  # spread of a candidate this near to the best: the look is repeated, so often
_POISON = 0xA5


@dataclass(frozen=True, slots=True)
class Job:
    """built: of a builder. footprint: bytes of weights that lie between two runs of a layer.

    limit: seconds until a server gives up.
    """

    workload: Workload
    built: Any
    feed: Feed
    footprint: int
    limit: float


def measure(place: Place, job: Job, only: Sequence[int]) -> dict[int, Measurement]:
    """Measurements of ``only`` of the library's members.

    Reports the member that runs alone, None while several do. Raises ``WorkerDied`` if the session is lost,
    ``QCompileError`` if there is none.
    """
    with place.session(job.limit) as session:
        results: dict[int, Measurement] = {}
        try:
            bench = _guarded(session, partial(_Bench, session, job), None)
            for member in only:
                report(member)
                slot = job.built.members.index(member)
                try:
                    error = _guarded(session, partial(bench.check, slot), member)
                except _Failed as failed:
                    error = str(failed)
                if error:
                    results[member] = Measurement((), error)
                else:
                    bench.good.append(slot)
            report(None)
            if bench.good:
                _guarded(session, bench.time, None)
            times = {job.built.members[slot]: Measurement(tuple(bench.seconds[slot])) for slot in bench.good}
        except _Failed as failed:  # of all together: the library cannot be loaded, say
            times = {member: Measurement((), f"measuring failed: {failed}") for member in only}
        return times | results


class _Failed(Exception):
    """A call failed, and the session is still there."""


def _guarded(session: Any, step: Callable[[], Any], progress: int | None) -> Any:
    try:
        return step()
    except QCompileError:
        raise
    except Exception as error:
        try:
            session.get_function("runtime.NumThreads")()
        except Exception:
            raise WorkerDied(f"the session was lost: {reason(error)}", progress) from None
        raise _Failed(reason(error)) from None


class _Bench:
    """The library and its arrays on the device."""

    def __init__(self, session: Any, job: Job):
        import tvm

        self.workload, self.feed, self.packings, self.footprint = (
            job.workload,
            job.feed,
            job.built.packings,
            job.footprint,
        )
        self.slots = len(self.packings)
        self.good: list[int] = []
        self.seconds: dict[int, list[float]] = {}
        threads = use_threads(session, job.workload.threads)
        if threads < job.workload.threads:
            raise QCompileError(
                f"the machine that measures runs on {threads} threads, not {job.workload.threads}",
                remedy=f"set TVM_NUM_THREADS={job.workload.threads} there, or tune for fewer threads",
            )
        self.device = session.cpu(0)
        module = load(session, job.built.library)
        self._main, self._spread = module[MAIN], module[SPREAD]
        self._constants = tvm.runtime.tensor(np.load(job.built.constants), self.device)
        w = job.workload
        self._x = tvm.runtime.tensor(padded(job.feed.x, w.x), self.device)
        residual = [] if w.residual is None else [padded(job.feed.residual, w.residual)]
        self._residual = [tvm.runtime.tensor(r, self.device) for r in residual]
        self._y = tvm.runtime.empty((elements(w.out),), w.out.dtype, self.device)
        self._rotate(range(self.slots), 0)

    def check(self, slot: int) -> str:
        """What is wrong with the candidate's result; "" if it is right."""
        size = self._y.shape[0] * np.dtype(self.workload.out.dtype).itemsize
        self._y.copyfrom(np.full(size, _POISON, np.uint8).view(self.workload.out.dtype))
        self._look([slot], 1, 1)
        return difference(self.workload, self._y.numpy(), self.feed.want)

    def time(self) -> None:
        """Fills ``seconds`` of the ``good`` slots."""
        self._rotate(self.good, self.footprint)
        for slot, times in self._look(self.good, _FIRST, 1).items():
            self.seconds[slot] = times
        best = min(min(self.seconds[slot]) for slot in self.good)
        slots = [slot for slot in self.good if min(self.seconds[slot]) <= HOPELESS * best]
        for slot in slots:
            del self.seconds[slot][:]
        self._rotate(slots, self.footprint)
        self._second_look(slots, best)
        for _ in range(_AGAIN):
            if not self._noisy(slots):
                break
            self._second_look(slots, best)

    def _second_look(self, slots: list[int], best: float) -> None:
        repeat = math.ceil(_INTERVAL / best)
        turn = best * repeat
        rounds = min(max(_RUNS, math.ceil(_SECONDS / turn)), _MOST_ROUNDS)
        rounds = min(rounds, max(_BATCH_RUNS, int(_BATCH_SECONDS / (turn * len(slots)))))
        times: dict[int, list[float]] = {slot: [] for slot in slots}
        for start in range(0, rounds, _ROUNDS):
            for slot, more in self._look(slots, min(_ROUNDS, rounds - start), repeat).items():
                times[slot] += more
        for slot in slots:
            self.seconds.setdefault(slot, []).extend(reduced(times[slot]))

    def _noisy(self, slots: list[int]) -> bool:
        """Whether neighbours disturbed one of those that may be the best."""
        seen = {slot: Measurement(tuple(self.seconds[slot])) for slot in slots}
        near = _NEAR * min(m.minimum for m in seen.values())
        return any(m.minimum <= near and m.spread > _NOISY for m in seen.values())

    def _rotate(self, slots: Sequence[int], footprint: int) -> None:
        """Copies the constants for these slots to run in turns."""
        import tvm

        layout = Layout.of(self.packings, slots, footprint)
        weights = tvm.runtime.empty((layout.size,), "uint8", self.device)
        self._memory = (weights, tvm.runtime.tensor(np.array(layout.copies, np.int64).reshape(-1), self.device))
        self._spread(self._constants, *self._memory)

    def _look(self, slots: list[int], rounds: int, repeat: int) -> dict[int, list[float]]:
        """Seconds of one call of each slot, of each round."""
        import tvm

        stamps = tvm.runtime.empty((rounds * self.slots * 4,), "int64", self.device)
        active = sum(1 << slot for slot in slots)
        tensors = (self._x, *self._residual, self._y, *self._memory, stamps)
        self._main(active, rounds, repeat, *tensors)
        stamped = stamps.numpy().reshape(rounds, self.slots, 2, 2)[:, slots]
        nanoseconds = stamped[..., 0] * 1_000_000_000 + stamped[..., 1]
        each = np.maximum(np.diff(nanoseconds, axis=-1)[..., 0], 1) * (1e-9 / repeat)
        return {slot: each[:, i].tolist() for i, slot in enumerate(slots)}


def reduced(times: list[float]) -> list[float]:
    """At most ``_TIMINGS``: the median of each stretch."""
    if len(times) <= _TIMINGS:
        return times
    return [float(np.median(part)) for part in np.array_split(times, _TIMINGS)]
