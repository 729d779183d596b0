"""``LoggedSchedules``: what tuning logs know of a workload, asked by the compiler layer by layer.

In this order: the best of exactly this workload, the best of the same layer at another batch (both "tuned", or
"counted" where nothing but instructions was measured), the knobs of the nearest recorded shape ("transferred"), the
template's default. What was timed goes before what was counted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.template import COUNTED, TRANSFERRED, TUNED, Schedule, Template, knobs_of
from qcompile.targets.kernels.templates import TEMPLATES, instructions
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target
from qcompile.tune.locations import default_log, parse_locations, shipped_logs
from qcompile.tune.log import TuningLog
from qcompile.tune.record import INSTRUCTIONS, SECONDS, UNITS, Record
from qcompile.tune.transfer import adapt, comparable, features, nearest

DEFAULT_RECORDS = "default"
_MEASURED = {SECONDS: TUNED, INSTRUCTIONS: COUNTED}  # what a schedule is called by the unit of its record


def log_files(records: str | Path | Sequence[str | Path] = DEFAULT_RECORDS) -> list[Path]:
    """The logs that are meant, first to be asked first.

    records: "default" for the user's own log, if there is one, and those that come with the package; "none"; a path, a
    list of paths separated by commas, or a sequence of those.
    """
    paths = [records] if isinstance(records, (str, Path)) else list(records)
    if paths == [DEFAULT_RECORDS]:
        return [*_own_log(), *shipped_logs()]
    texts = [path for path in paths if isinstance(path, str)]
    return parse_locations(texts) if texts and texts == paths else [Path(path) for path in paths]


def _own_log() -> list[Path]:
    """The user's own, if it is there to be seen, and the user has a home at all."""
    with contextlib.suppress(RuntimeError):
        own = default_log()
        return [own] if os.path.exists(own) else []  # Path.exists raises where a folder may not be entered
    return []


@contextlib.contextmanager
def open_logs(records: str | Path | Sequence[str | Path] = DEFAULT_RECORDS) -> Iterator[list[TuningLog]]:
    """The logs of ``log_files``, to be read. Raises ``QCompileError`` for one that is named and is not there or bad."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(TuningLog.open(path, read_only=True)) for path in log_files(records)]


class LoggedSchedules:
    """A ``Schedules`` by the records of ``logs``; of an exact hit the first log's counts, whatever later ones have.

    Records that were measured with other instructions or another version of the template are never used. Records whose
    knobs the template does not know, or that are illegal, are passed over.
    """

    def __init__(self, logs: Sequence[TuningLog], target: Target | CudaTarget):
        self._logs, self._target = logs, target
        self._known: dict[Workload, Schedule] = {}
        self._shapes: dict[tuple[Any, ...], list[_Shape]] = {}

    def __call__(self, workload: Workload) -> Schedule:
        if workload not in self._known:
            self._known[workload] = self._look_up(workload)
        return self._known[workload]

    def _look_up(self, workload: Workload) -> Schedule:
        for find, sources in (
            (self._exact, _MEASURED),
            (self._of_another_batch, _MEASURED),
            (self._of_the_nearest, dict.fromkeys(UNITS, TRANSFERRED)),
        ):
            for unit, source in sources.items():
                knobs = find(workload, unit)
                if knobs is not None:
                    return Schedule(knobs, source)
        return Schedule()

    def _exact(self, workload: Workload, unit: str) -> Any:
        key = task_key(workload, self._target, unit)
        records = (record for log in self._logs for record in _fastest(log, *key))
        return next(filter(None, (usable_knobs(record.knobs, workload, self._target) for record in records)), None)

    def _of_another_batch(self, workload: Workload, unit: str) -> Any:
        key = task_key(workload, self._target, unit)
        records = (record for log in self._logs for record in log.other_batches(*key))
        return self._adapted(
            ((record, Workload.from_key(record.workload, record.batch)) for record in records), workload
        )

    def _of_the_nearest(self, workload: Workload, unit: str) -> Any:
        shapes = self._alike(workload, unit)
        near = [shapes[i] for i in nearest(features(workload), [shape.point for shape in shapes])]
        return self._adapted(((shape.record, shape.workload) for shape in near), workload)

    def _adapted(self, found: Iterable[tuple[Record, Workload]], workload: Workload) -> Any:
        """The knobs of the first usable record, made fit for ``workload``; None if the default promises more."""
        for record, old in found:
            knobs = usable_knobs(record.knobs, old, self._target)
            if knobs is not None:
                return adapt(knobs, old, workload, self._target)
        return None

    def _alike(self, workload: Workload, unit: str) -> list[_Shape]:
        """All comparable shapes, the last measured first."""
        kind = comparable(workload)
        key = (*kind, unit)
        if key not in self._shapes:
            version = TEMPLATES[workload.operator].version
            wanted = (workload.operator, instructions(workload, self._target), version, unit)
            records = [record for log in self._logs for record in log.same_operator(*wanted)]
            shapes = map(_shape, sorted(records, key=lambda record: record.created, reverse=True))
            self._shapes[key] = [shape for shape in shapes if shape and comparable(shape.workload) == kind]
        return self._shapes[key]


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """The best record of a workload, and its place among the shapes."""

    record: Record
    workload: Workload
    point: np.ndarray


def _shape(record: Record) -> _Shape | None:
    workload = known_workload(record)
    return _Shape(record, workload, features(workload)) if workload else None


def known_workload(record: Record) -> Workload | None:
    """None if this version does not know such layers."""
    try:
        workload = Workload.from_key(record.workload, record.batch)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    extents = (*workload.weight, *workload.x.shape, *workload.out.shape, getattr(workload.spec, "groups", 1))
    return workload if all(type(extent) is int and extent > 0 for extent in extents) else None


def usable_knobs(text: str, workload: Workload, target: Target | CudaTarget) -> Any:
    """Recorded knobs (JSON) of a workload; None if its template does not know them or forbids them."""
    template = TEMPLATES[workload.operator]
    try:
        knobs = knobs_of(template, text)
    except (ValueError, TypeError):
        return None
    return knobs if _are_legal(knobs, template, workload, target) else None


def _are_legal(knobs: Any, template: Template, workload: Workload, target: Target | CudaTarget) -> bool:
    """JSON has numbers of other types that are equal to legal ones: 1.0, true."""
    default = template.default(workload, target)
    names = [field.name for field in dataclasses.fields(default)]
    if any(type(getattr(knobs, name)) is not type(getattr(default, name)) for name in names):
        return False
    return template.is_legal(workload, target, knobs)


def task_key(workload: Workload, target: Target | CudaTarget, unit: str = SECONDS) -> tuple[str, int, str, int, str]:
    """What a log knows a workload by: the fields of ``Task``."""
    version = TEMPLATES[workload.operator].version
    return workload.key, workload.batch, instructions(workload, target), version, unit


def _fastest(log: TuningLog, *key: Any) -> Iterator[Record]:
    """The records of a task, best first; after the very best one, which mostly will do, by their minima alone."""
    best = log.best(*key)
    if best is None:
        return
    yield best
    yield from sorted((record for record in log.trials(*key) if record.ok), key=lambda record: record.minimum)
