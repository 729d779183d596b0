"""Evaluation data in two halves: one to search on, one to report on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qcompile.analyze.data import EvaluationData, Sample
from qcompile.errors import QCompileError
from qcompile.model import TensorSpec


class _EveryOther(EvaluationData):
    """The samples ``start``, ``start + 2``, ... of others: ``limit`` of them, all if None."""

    def __init__(self, whole: EvaluationData, start: int, limit: int | None):
        self._whole, self._start = whole, start
        self._stop = None if limit is None else start + 2 * limit
        self.batch, self.notes = whole.batch, whole.notes

    def samples(self) -> Iterator[Sample]:
        self.rows = 0
        for sample in itertools.islice(self._whole.samples(), self._start, self._stop, 2):
            self.rows += sample.rows or self._whole.batch
            yield sample

    def check_rows(self, outputs: Sequence[TensorSpec], own_metric: bool) -> None:
        self._whole.check_rows(outputs, own_metric)


@dataclass(frozen=True, slots=True)
class Halves:
    """Every other sample: data that is sorted by class or by source is alike in both.

    data: read anew for each pass, so that it need not fit into memory.
    """

    data: EvaluationData

    def search(self, limit: int | None = None) -> EvaluationData:
        return _EveryOther(self.data, 0, limit)

    def held(self) -> EvaluationData:
        return _EveryOther(self.data, 1, None)

    def first(self) -> Sample:
        """Raises QCompileError if there are not two samples at least."""
        found = list(itertools.islice(self.data.samples(), 2))
        if len(found) < 2:
            reason = "one sample cannot be both searched on and held back"
            raise QCompileError(reason, node="evaluation data", remedy="give more samples: a few hundred are usual")
        return found[0]
