"""Calibration data: what users have, as a stream of feeds of the model.

A *row* is one sample of one input: the input's shape without its first dimension N, which counts samples (a model with
``x: (1, 3, 224, 224)`` takes rows of (3, 224, 224), one at a time; with N = 4, four at a time). Where a model's
inputs do not share a first dimension there is no batch to speak of: a row is then all of an input, and N is 1.
Rows are read one by one, so memory does not grow with the number of samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from qcompile.calibrate.arrays import Rows, in_memory, open_npy, open_npz
from qcompile.errors import QCompileError, nearest
from qcompile.model import TensorSpec

RANDOM_DATA_WARNING = """\
************************************************************************************************
* WARNING: no calibration data was given, so RANDOM NOISE stands in for it.                    *
* The ranges of activations will be wrong and THE ACCURACY OF THE RESULT MEANS NOTHING.        *
* This is fit for measuring speed only. Give real samples: --calib-data samples.npz            *
************************************************************************************************"""

LABELS = ("labels", "targets")  # arrays that are meant for metrics, by their names
T = TypeVar("T")
Feed = dict[str, np.ndarray]
Chunk = tuple[str, Mapping[str, Rows]]  # some samples: what to call them in an error, and input name -> array


class CalibrationData:
    """Feeds of a model: iterate to get dicts ``input name -> array of the input's shape and dtype``.

    Data in files can be iterated again and again. ``notes`` are remarks for the user on the last iteration, ``rows``
    the samples that it has given so far.
    """

    def __init__(
        self,
        chunks: Callable[[], Iterator[Chunk]],
        inputs: Sequence[TensorSpec],
        num_samples: int | None = None,
    ):
        if num_samples is not None and num_samples < 1:
            raise QCompileError(f"{num_samples} calibration samples asked for", remedy="ask for 1 or more")
        firsts = {spec.shape[:1] for spec in inputs}
        self.batched = len(firsts) == 1 and firsts != {()}
        self.batch = inputs[0].shape[0] if self.batched else 1
        self.notes: list[str] = []
        self.rows = 0
        self._chunks, self._inputs, self._limit = chunks, tuple(inputs), num_samples

    @classmethod
    def of(cls, source: Any, inputs: Sequence[TensorSpec], num_samples: int | None = None) -> Self:
        """From any of the sources that ``calibration_data`` takes."""
        if isinstance(source, (str, Path)):
            data = cls(_files(Path(source), inputs), inputs, num_samples)
            data.check_start()
            return data
        if isinstance(source, Mapping):
            source = [source]
        return cls(lambda: _dicts(source), inputs, num_samples)

    def __iter__(self) -> Iterator[Feed]:
        for group, new in self._batches(itertools.islice(self._rows(), self._limit)):
            if again := self.batch - new:
                self.notes.append(
                    f"{self.rows} samples are no multiple of the batch of {self.batch}: {again} of them fill the last"
                )
            yield self._feed(group)
        if not self.rows:
            raise QCompileError("no calibration samples", remedy="give at least one")

    def _batches(self, rows: Iterator[T]) -> Iterator[tuple[list[T], int]]:
        """As many rows as the model takes at a time, and how many of them are new: the last are filled up by the first,
        so that the model sees nothing but samples.
        """
        self.notes.clear()
        self.rows = 0
        first: list[T] = []
        while group := list(itertools.islice(rows, self.batch)):
            first, new = first or group, len(group)
            self.rows += new
            yield [*group, *itertools.islice(itertools.cycle(first), self.batch - new)], new

    def _feed(self, rows: Sequence[Feed]) -> Feed:
        return {s.name: np.stack([row[s.name] for row in rows]).reshape(s.shape) for s in self._inputs}

    def check_start(self) -> None:
        """Checks names, shapes and dtypes of the first file without reading its values."""
        for chunk in itertools.islice(self._chunks(), 1):
            self._matched(*chunk)

    def _rows(self) -> Iterator[Feed]:
        for chunk in self._chunks():
            arrays = self._matched(*chunk)
            streams = [arrays[s.name].read() for s in self._inputs]
            for i, row in enumerate(zip(*streams, strict=True)):
                yield {s.name: convert(a, s, arrays[s.name], i) for s, a in zip(self._inputs, row, strict=True)}

    def _matched(self, where: str, chunk: Mapping[str, Rows]) -> dict[str, Rows]:
        """The array of each input, with a first axis of rows; an error where they do not match the model."""
        names = [s.name for s in self._inputs]
        for key in [key for key in chunk if key not in names and key not in LABELS]:
            raise QCompileError(f"the model has no input '{key}'", node=where, remedy=nearest(key, names))
        for spec in [spec for spec in self._inputs if spec.name not in chunk]:
            raise QCompileError(
                f"no data for input '{spec.name}'",
                node=where,
                remedy=f"add an array '{spec.name}' of shape {self._expected(spec)}",
            )
        arrays = {spec.name: self._check(chunk[spec.name], spec) for spec in self._inputs}
        lengths = {name: rows.shape[0] for name, rows in arrays.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{count} of '{name}'" for name, count in lengths.items())
            raise QCompileError(
                f"inputs differ in their number of samples: {counts}", node=where, remedy="give as many of each"
            )
        return arrays

    def _row_shape(self, spec: TensorSpec) -> tuple[int, ...]:
        return spec.shape[1:] if self.batched else spec.shape

    def _expected(self, spec: TensorSpec) -> str:
        return "(" + ", ".join(["samples", *map(str, self._row_shape(spec))]) + ")"

    def _check(self, rows: Rows, spec: TensorSpec) -> Rows:
        shape = self._row_shape(spec)
        if rows.shape == shape:  # a single sample without an axis that counts samples
            rows = rows.as_one_row()
        elif self.batched and rows.shape[1:] == spec.shape:  # whole feeds, stacked
            rows = rows.flattened()
        if not rows.shape or rows.shape[1:] != shape:
            raise QCompileError(
                f"shape {rows.shape} does not fit the input's {spec.shape}",
                node=rows.where,
                remedy=f"give {self._expected(spec)}",
            )
        wanted = np.dtype(spec.dtype)
        if not (rows.dtype.kind == wanted.kind == "f" or (rows.dtype.kind in "biu" and wanted.kind in "biu")):
            raise QCompileError(
                f"dtype {rows.dtype} does not fit the input's {wanted}",
                node=rows.where,
                remedy=f"convert it to {wanted}, with the preprocessing that the model expects",
            )
        return rows


def calibration_data(source: Any, inputs: Sequence[TensorSpec], num_samples: int | None = None) -> CalibrationData:
    """Feeds for a model with these inputs, from any of the sources that people have.

    source: path of an .npz file (keys are input names, the first axis counts samples); path of a folder of such files
    or, for a model of one input, of .npy files, in order of their names; an iterable of dicts of arrays; an object
    with ONNX Runtime's ``get_next()``. A file in a folder, or a dict, holds any number of rows, or one without an
    axis for them. Arrays of the input's whole shape, stacked along a new first axis, will do as well. ``LABELS`` are
    passed over.
    num_samples: use the first so many samples; None for all.

    Dtypes may differ within floats (float64 for float32) and, where the values fit, within integers. Errors name the
    file and the key: keys, shapes or dtypes that do not match, NaN or infinity, no sample at all, files that cannot
    be read. Names, shapes and dtypes of the first file are checked now, the rest on the way.

    Where samples do not fill the model's batch, the first ones fill it up, with a note.
    """
    return CalibrationData.of(source, inputs, num_samples)


def random_data(inputs: Sequence[TensorSpec], count: int = 8, seed: int = 0) -> Iterator[Feed]:
    """``count`` feeds of noise, for want of data; whoever uses them should see ``RANDOM_DATA_WARNING``.

    Floats are standard normal. int32 and int64 are 0 or 1, which are valid as tokens, masks and indices; bool too.
    Narrower integers, such as the uint8 of images, take all values of their type.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield {spec.name: _noise(rng, spec) for spec in inputs}


def _noise(rng: np.random.Generator, spec: TensorSpec) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(spec.shape, np.float32).astype(dtype)
    if dtype.kind == "b" or dtype.itemsize >= 4:
        return rng.integers(0, 2, spec.shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, spec.shape).astype(dtype)


def _files(path: Path, inputs: Sequence[TensorSpec]) -> Callable[[], Iterator[Chunk]]:
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        files = [file for file in files if file.suffix in (".npy", ".npz")]
    except OSError as error:
        raise QCompileError(error.strerror or str(error), node=str(path), remedy="make the folder readable") from None
    if not files:
        reason = "no .npy or .npz file in this folder" if path.is_dir() else "not an .npz file or a folder"
        raise QCompileError(reason, node=str(path), remedy="give an .npz whose keys are the names of the inputs")
    return lambda: (_open(file, inputs) for file in files)


def _open(file: Path, inputs: Sequence[TensorSpec]) -> Chunk:
    if file.suffix == ".npz":
        return str(file), open_npz(file)
    if len(inputs) > 1:
        names = ", ".join(f"'{spec.name}'" for spec in inputs)
        raise QCompileError(
            f"an .npy file cannot feed {len(inputs)} inputs",
            node=str(file),
            remedy=f"give .npz files with keys {names}",
        )
    return str(file), {inputs[0].name: open_npy(file)}


def _dicts(source: Any) -> Iterator[Chunk]:
    samples: Iterable[Any] = iter(source.get_next, None) if hasattr(source, "get_next") else source
    for number, sample in enumerate(samples):
        where = f"calibration sample {number}"
        if not isinstance(sample, Mapping):
            raise QCompileError(
                f"a {type(sample).__name__}, not a dict", node=where, remedy="give dicts: input name -> array"
            )
        yield where, {str(name): in_memory(array, f"{where}, key '{name}'") for name, array in sample.items()}


def convert(row: np.ndarray, spec: TensorSpec, source: Rows, number: int) -> np.ndarray:
    """One row in the dtype of the input; an error for NaN, infinity and integers that do not fit."""
    values = row.astype(spec.dtype, copy=False)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            kind = "NaN" if np.isnan(values).any() else "infinity"
            raise QCompileError(
                f"{kind} in sample {number}", node=source.where, remedy="remove the sample or mend its values"
            )
    elif not np.array_equal(values, row):
        raise QCompileError(
            f"values of sample {number} do not fit {spec.dtype}",
            node=source.where,
            remedy=f"convert the data to {spec.dtype}",
        )
    return values
