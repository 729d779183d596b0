"""Measures all samples: here or in workers, with a checkpoint, summed up in order."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from qcompile.analyze.checkpoint import Checkpoint
from qcompile.analyze.data import Sample
from qcompile.errors import QCompileError

BLOCK = 4  # samples a task: enough to make up for sending it, few enough to share out evenly
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Task:
    """What some samples are to be measured for; it can be sent to other processes. folder: of the simulation."""

    folder: str
    samples: tuple[Sample, ...] = field(default=(), kw_only=True)


T = TypeVar("T", bound=Task)
Measure = Callable[[T], list[Any]]  # the sums of each of a task's samples


def measure_all(
    measure: Measure[T],
    task: T,
    samples: Iterable[Sample],
    executor: Executor | None,
    ahead: int,
    checkpoint: Checkpoint | None,
    progress: Progress,
) -> tuple[np.ndarray, int]:
    """Sums over the samples, as ``measure`` gives them for one, and the number of samples."""
    total: np.ndarray | None = None
    count = 0
    for number, sums in measure_each(measure, task, samples, executor, ahead, checkpoint):
        if total is not None and total.shape != sums.shape:
            raise QCompileError("a user's metric must give one number a sample", node=f"sample {number}")
        total = sums.copy() if total is None else total + sums
        count = number + 1
        progress(count)
    if total is None:
        raise QCompileError("no samples to evaluate on", remedy="give at least one")
    return total, count


def measure_each(
    measure: Measure[T],
    task: T,
    samples: Iterable[Sample],
    executor: Executor | None,
    ahead: int,
    checkpoint: Checkpoint | None = None,
) -> Iterator[tuple[int, Any]]:
    """The number and the sums of each sample, in order; those that are new are added to the checkpoint.

    task: without samples. executor: None for this process. ahead: tasks that are sent before the first is done.
    """
    numbered = enumerate(samples)
    waiting: deque[tuple[list[tuple[int, str]], dict[int, Any], Future | None]] = deque()

    def finish() -> Iterator[tuple[int, Any]]:
        block, known, future = waiting.popleft()
        fresh = iter(future.result() if future is not None else ())
        for number, digest in block:
            if number not in known:
                known[number] = next(fresh)
                if checkpoint is not None:
                    checkpoint.add(number, digest, known[number])
            yield number, known[number]

    size = 1 if executor is None else BLOCK
    while block := list(itertools.islice(numbered, size)):
        digests = [(number, sample.digest() if checkpoint is not None else "") for number, sample in block]
        found = {number: checkpoint.get(number, digest) for number, digest in digests} if checkpoint is not None else {}
        known = {number: sums for number, sums in found.items() if sums is not None}
        missing = tuple(sample for number, sample in block if number not in known)
        waiting.append(
            (digests, known, _submit(measure, replace(task, samples=missing), executor) if missing else None)
        )
        if len(waiting) > (ahead if executor is not None else 0):
            yield from finish()
    while waiting:
        yield from finish()


def _submit(measure: Measure[T], task: T, executor: Executor | None) -> Future:
    if executor is not None:
        return executor.submit(measure, task)
    done: Future = Future()
    done.set_result(measure(task))
    return done


def _end_by_interrupts() -> None:
    """Ctrl-C reaches all processes of a terminal: workers end at once, without a traceback each."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def executor_of(count: int, executor: Executor | None) -> Iterator[tuple[Executor | None, int]]:
    """The executor to use, None for this process, and how many tasks to send ahead."""
    if executor is not None:
        yield executor, 64
        return
    if count <= 1:
        yield None, 0
        return
    context = multiprocessing.get_context("spawn")  # a fork would share the threads' locks of TVM and LLVM
    with ProcessPoolExecutor(count, context, _end_by_interrupts) as pool:
        try:
            yield pool, 2 * count
        except BrokenProcessPool:
            reason = "a worker process ended before its work was done"
            remedy = "see what it printed; a script must start workers under: if __name__ == '__main__'"
            raise QCompileError(reason, node=f"{count} workers", remedy=remedy) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
