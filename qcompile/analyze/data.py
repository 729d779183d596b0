"""Evaluation data: what calibration data is, and whatever stands beside the inputs (labels), sample by sample."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompile.calibrate.arrays import Rows
from qcompile.calibrate.data import LABELS, CalibrationData, Feed, convert
from qcompile.errors import QCompileError
from qcompile.model import TensorSpec


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of the model: a feed, and the arrays that are no inputs, of the same samples.

    rows: samples, if fewer than the feed has: others fill it up, and nothing that comes of them counts.
    """

    feed: Feed
    labels: dict[str, np.ndarray]
    rows: int | None = None

    def own(self, outputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """What the model gives for the samples, of what it gives for the feed."""
        return outputs if self.rows is None else {name: values[: self.rows] for name, values in outputs.items()}

    def digest(self) -> str:
        """Of all bytes, for a checkpoint to know the sample again."""
        hashed = hashlib.blake2b(digest_size=8)
        hashed.update(b"" if self.rows is None else str(self.rows).encode())
        for name, array in (*self.feed.items(), *self.labels.items()):
            hashed.update(f"{name} {array.dtype} {array.shape}".encode())
            hashed.update(np.ascontiguousarray(array).tobytes())
        return hashed.hexdigest()


class EvaluationData(CalibrationData):
    """Iterates over feeds as its base does; ``samples`` gives them with their labels.

    Where samples do not fill the last batch, nothing but them counts. ``full_batches``: why that cannot be, if it
    cannot; then they are left out, with a note.
    """

    full_batches: str | None = None

    def samples(self) -> Iterator[Sample]:
        given = False
        for group, new in self._batches(itertools.islice(self._labelled_rows(), self._limit)):
            if new < self.batch and self.full_batches is not None:
                reason = f"{self.full_batches}, {self.batch} samples at a time"
                self.notes.append(f"the last {new} of {self.rows} samples are left out: {reason}")
                break
            given = True
            labels = {name: np.stack([row.labels[name] for row in group[:new]]) for name in group[0].labels}
            yield Sample(self._feed([row.feed for row in group]), labels, new if new < self.batch else None)
        if not given:
            least = 1 if self.full_batches is None else self.batch
            raise QCompileError("no samples to evaluate on", remedy=f"give at least {least}")

    def digests(self, run: Sample) -> list[str]:
        """Of the inputs of each sample of a run, to know it again, in batches of any size."""
        parts = [np.ascontiguousarray(array).reshape(self.batch, -1) for array in run.feed.values()]
        rows = (b"".join(part[i].tobytes() for part in parts) for i in range(run.rows or self.batch))
        return [hashlib.blake2b(row, digest_size=6).hexdigest() for row in rows]

    def check_rows(self, outputs: Sequence[TensorSpec], own_metric: bool) -> None:
        """Finds out whether a batch need not be full: what comes of its samples must be told from the rest."""
        for spec in outputs:
            if spec.shape[:1] != (self.batch,):
                self.full_batches = f"output {spec.name} has no row for each"
        if own_metric:
            self.full_batches = "a metric of one's own is called with full batches"

    def _labelled_rows(self) -> Iterator[Sample]:
        names = {spec.name for spec in self._inputs}
        for where, chunk in self._chunks():
            matched = self._matched(where, chunk)
            count = next(iter(matched.values())).shape[0]
            _check_labels({name: chunk[name] for name in LABELS if name in chunk and name not in names}, count)
            others = {name: rows for name, rows in chunk.items() if name not in names and rows.shape[:1] == (count,)}
            streams = [rows.read() for rows in (*(matched[spec.name] for spec in self._inputs), *others.values())]
            for i, row in enumerate(zip(*streams, strict=True)):
                feed = {s.name: convert(a, s, matched[s.name], i) for s, a in zip(self._inputs, row, strict=False)}
                labels = dict(zip(others, map(np.asarray, row[len(self._inputs) :]), strict=True))
                yield Sample(feed, labels)

    def _matched(self, where: str, chunk: Mapping[str, Rows]) -> dict[str, Rows]:
        return super()._matched(where, _only(chunk, {spec.name for spec in self._inputs}))


def _check_labels(labels: Mapping[str, Rows], count: int) -> None:
    for name, rows in labels.items():
        if rows.shape[:1] != (count,):
            reason = f"'{name}' has shape {rows.shape}, and there are {count} samples"
            raise QCompileError(reason, node=rows.where, remedy=f"give {count} rows")


def _only(chunk: Mapping[str, Rows], names: set[str]) -> dict[str, Rows]:
    return {name: rows for name, rows in chunk.items() if name in names}


def evaluation_data(source: Any, inputs: Sequence[TensorSpec], num_samples: int | None = None) -> EvaluationData:
    """Samples from any source that ``calibration_data`` takes.

    An array that is no input, with as many rows as the inputs have, is passed on to metrics under its name: "labels",
    "targets", which are an error if they have others. Any other array is passed over.
    """
    return source if isinstance(source, EvaluationData) else EvaluationData.of(source, inputs, num_samples)
