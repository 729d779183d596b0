"""``TensorStats``: what calibration learns of each tensor, as a value and as a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from qcompile.calibrate.channels import ChannelStats
from qcompile.calibrate.histogram import CHUNK, Histogram
from qcompile.errors import QCompileError
from qcompile.versioned import FileKind

_KIND = FileKind(
    version=1,
    title="the statistics format",
    again="calibrate again",
    otherwise="not calibration statistics",
    remedy="give a file that TensorStats.save wrote",
)


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """Statistics of the values of one tensor. NaN and infinity are counted, and enter nothing else.

    count: finite values. nan, infinite: the others.
    min, max: of the finite values, exact float32 values; 0 if there are none.
    sum, sum_squares: of the finite values, added in float64.
    histogram: of the finite values, or None where it was not asked for.
    channels: the same by channel, for what a layer with weights reads; None elsewhere.
    """

    count: int = 0
    nan: int = 0
    infinite: int = 0
    min: float = 0.0
    max: float = 0.0
    sum: float = 0.0
    sum_squares: float = 0.0
    histogram: Histogram | None = field(default_factory=Histogram)
    channels: ChannelStats | None = None

    @staticmethod
    def of(values: np.ndarray, histogram: bool = True, axis: int | None = None) -> TensorRecord:
        """The record of an array of any shape, taken as float32; by channel along ``axis`` too, if there is one."""
        array = np.asarray(values, np.float32)
        channels = None if axis is None else ChannelStats.of(array, axis)
        flat = array.reshape(-1)
        nan = infinite = 0
        if flat.size and not (np.isfinite(flat.min()) and np.isfinite(flat.max())):  # both pass NaN on
            nan, infinite = int(np.isnan(flat).sum()), int(np.isinf(flat).sum())
            flat = flat[np.isfinite(flat)]
        if not flat.size:
            return TensorRecord(
                nan=nan, infinite=infinite, histogram=Histogram() if histogram else None, channels=channels
            )
        total = squares = 0.0
        for start in range(0, flat.size, CHUNK):
            chunk = flat[start : start + CHUNK].astype(np.float64)
            total += float(chunk.sum())
            squares += float(np.square(chunk, out=chunk).sum())  # not a dot product: BLAS would start threads
        return TensorRecord(
            count=flat.size,
            nan=nan,
            infinite=infinite,
            min=float(flat.min()),
            max=float(flat.max()),
            sum=total,
            sum_squares=squares,
            histogram=Histogram.of(flat) if histogram else None,
            channels=channels,
        )

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0

    @property
    def mean_square(self) -> float:
        """Mean of the squares."""
        return self.sum_squares / self.count if self.count else 0.0

    def merge(self, other: TensorRecord) -> TensorRecord:
        """The record of the values of both; without a histogram if either has none."""
        full = [record for record in (self, other) if record.count]
        return TensorRecord(
            count=self.count + other.count,
            nan=self.nan + other.nan,
            infinite=self.infinite + other.infinite,
            min=min((record.min for record in full), default=0.0),
            max=max((record.max for record in full), default=0.0),
            sum=self.sum + other.sum,
            sum_squares=self.sum_squares + other.sum_squares,
            histogram=self.histogram.merge(other.histogram) if self.histogram and other.histogram else None,
            channels=self.channels.merge(other.channels) if self.channels and other.channels else None,
        )


@dataclass(frozen=True, slots=True)
class TensorStats:
    """Statistics of a model's float tensors over some samples.

    records: tensor name (a model input or a Relax variable, so an ONNX tensor name) -> its record.
    samples: how many samples they are of.
    """

    records: Mapping[str, TensorRecord] = field(default_factory=dict)
    samples: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", MappingProxyType(dict(self.records)))

    def merge(self, other: TensorStats) -> TensorStats:
        """Statistics over the samples of both, which must be of one model; an error names a tensor that one lacks."""
        if not self.samples or not other.samples:
            return self if self.samples else other
        odd = sorted(self.records.keys() ^ other.records.keys())
        if odd:
            raise QCompileError(
                "only one of the two statistics to merge has this tensor",
                node=odd[0],
                remedy="merge statistics of one model, made by one version of qcompile",
            )
        records = {name: record.merge(other.records[name]) for name, record in self.records.items()}
        return TensorStats(records, self.samples + other.samples)

    def save(self, path: str | Path) -> None:
        """Writes a JSON file of one line a tensor; every number comes back as it was.

        An older file of that name stays as it is until the new one is complete.
        """
        lines = [f"{json.dumps(name)}: {json.dumps(_to_json(record))}" for name, record in self.records.items()]
        body = ",\n".join(lines)
        text = f'{{"version": {_KIND.version}, "samples": {self.samples}, "tensors": {{\n{body}\n}}}}\n'
        part = Path(f"{path}.part")
        try:
            part.write_text(text)
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise QCompileError(
                f"cannot be written ({error.strerror or error})", node=str(path), remedy="choose another path"
            ) from None

    @staticmethod
    def load(path: str | Path) -> TensorStats:
        """Reads what ``save`` wrote; an error for another version, another kind of file or none."""
        return _KIND.read(path, _decode)


def _decode(data: dict[str, Any]) -> TensorStats:
    return TensorStats({name: _from_json(record) for name, record in data["tensors"].items()}, data["samples"])


def _to_json(record: TensorRecord) -> dict[str, Any]:
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    h = record.histogram
    fields["histogram"] = h and {"exponent": h.exponent, "first": h.first, "counts": h.counts.tolist()}
    if record.channels is None:
        del fields["channels"]
    else:
        fields["channels"] = record.channels.to_json()
    return fields


def _from_json(fields: dict[str, Any]) -> TensorRecord:
    h = fields["histogram"]
    c = fields.get("channels")
    return TensorRecord(**{**fields, "histogram": h and Histogram(**h), "channels": c and ChannelStats.from_json(c)})
