"""Arrays that are read a row at a time: in memory, in an .npy file, in an .npz archive (compressed or not)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from qcompile.errors import QCompileError

_BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Rows:
    """An array whose first axis can be streamed.

    where: what to call it in an error ("calib.npz, key 'x'"). shape, dtype: of the whole array.
    read: starts an iteration over ``array[0], array[1], ...``; each holds one row in memory.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], Iterator[np.ndarray]]

    def as_one_row(self) -> Rows:
        """The same array behind a new first axis of length 1."""

        def whole() -> Iterator[np.ndarray]:
            rows = list(self.read()) if self.shape else [next(self.read())]
            yield np.array(rows, self.dtype).reshape(self.shape)

        return Rows(self.where, (1, *self.shape), self.dtype, whole)

    def flattened(self) -> Rows:
        """The same array without its first axis: the rows of all its rows."""
        shape = (self.shape[0] * self.shape[1], *self.shape[2:])
        return Rows(self.where, shape, self.dtype, lambda: (row for block in self.read() for row in block))


def in_memory(array: object, where: str) -> Rows:
    """An array (or what numpy makes one from) in memory."""
    try:
        values = np.asarray(array)
    except (ValueError, TypeError) as error:
        raise QCompileError(f"not an array: {error}", node=where, remedy="give a numpy array") from None
    return Rows(where, values.shape, values.dtype, lambda: iter(values if values.ndim else values[None]))


def open_npy(path: Path) -> Rows:
    """The array of an .npy file; only the header is read now."""
    return _stored(str(path), lambda: path.open("rb"))


def open_npz(path: Path) -> Mapping[str, Rows]:
    """Key -> array of an .npz archive; only the headers are read now."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except _BROKEN as error:
        raise _unreadable(str(path), error) from None
    return {
        member.removesuffix(".npy"): _stored(f"{path}, key '{member.removesuffix('.npy')}'", _member(path, member))
        for member in members
    }


def _member(path: Path, member: str) -> Callable[[], IO[bytes]]:
    def start() -> IO[bytes]:
        with zipfile.ZipFile(path) as archive:  # the open member keeps the file open
            return archive.open(member)

    return start


def _stored(where: str, start: Callable[[], IO[bytes]]) -> Rows:
    try:
        with start() as stream:
            shape, fortran, dtype = _header(stream)
    except _BROKEN as error:
        raise _unreadable(where, error) from None
    if dtype.hasobject:
        raise QCompileError("holds Python objects, not numbers", node=where, remedy="save arrays of a numeric dtype")

    def read() -> Iterator[np.ndarray]:
        try:
            with start() as stream:
                _header(stream)
                if fortran:  # its rows are scattered over the file, so all of it is needed at once
                    yield from np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
                    return
                count, row = (shape[0], shape[1:]) if shape else (1, ())
                size = dtype.itemsize * int(np.prod(row, dtype=np.int64))
                for i in range(count):
                    data = stream.read(size)
                    if len(data) != size:
                        raise EOFError(f"it ends in row {i} of {count}")
                    yield np.frombuffer(data, dtype).reshape(row)
        except _BROKEN as error:
            raise _unreadable(where, error) from None

    return Rows(where, shape, dtype, read)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype; the stream then stands at the data."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version[0]}.{version[1]} of the .npy format is for structured arrays")


def _unreadable(where: str, error: Exception) -> QCompileError:
    if isinstance(error, FileNotFoundError):
        return QCompileError("no such file", node=where, remedy="check the path")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return QCompileError(
        f"cannot be read ({reason})", node=where, remedy="write it again with numpy.save or numpy.savez"
    )
