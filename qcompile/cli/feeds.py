"""Inputs and outputs of ``run`` and ``bench`` as .npz files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from qcompile.calibrate.data import LABELS
from qcompile.errors import QCompileError, nearest
from qcompile.manifest import TensorInfo

Feed = dict[str, np.ndarray]


def load_npz(path: Path) -> Feed:
    """The arrays of an .npz file."""
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("a single array")
        with file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise QCompileError(error.strerror or str(error), node=str(path), remedy="give an .npz file") from None
    except Exception as error:  # numpy and zipfile raise many kinds for a file that is no .npz
        why = "" if "pickle" in str(error) else f" ({error})"  # what numpy takes for pickles is anything
        raise QCompileError(
            f"not an .npz file{why}", node=str(path), remedy="make one: numpy.savez('x.npz', input_name=array)"
        ) from None


def runs_of(arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorInfo], where: str) -> Iterator[Feed]:
    """The arrays as feeds of the model: several if the first axis of all counts more samples than it takes. ``LABELS``
    are passed over.

    Raises ``QCompileError`` for missing names and for shapes and dtypes that do not fit.
    """
    names = [t.name for t in inputs]
    for name in arrays:
        if name not in names and name not in LABELS:
            raise QCompileError(f"the model has no input '{name}'", node=where, remedy=nearest(name, names))
    counts = {}
    for info in inputs:
        if info.name not in arrays:
            raise QCompileError(
                f"no array '{info.name}'", node=where, remedy=f"add one of {info.dtype} {tuple(info.shape)}"
            )
        counts[info.name] = _runs(arrays[info.name], info, where)
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        raise QCompileError(
            f"inputs differ in their number of runs: {shown}", node=where, remedy="give as many of each"
        )
    for i in range(next(iter(counts.values()), 1)):
        yield {t.name: arrays[t.name].reshape(-1, *t.shape)[i] for t in inputs}


def _runs(array: np.ndarray, info: TensorInfo, where: str) -> int:
    if array.dtype != np.dtype(info.dtype):
        raise QCompileError(
            f"'{info.name}' is {array.dtype}, the model takes {info.dtype}",
            node=where,
            remedy=f"convert it: array.astype('{info.dtype}')",
        )
    if array.shape == info.shape:
        return 1
    batch = info.shape[0] if info.shape else 0
    if batch and array.shape and array.shape[1:] == info.shape[1:] and array.shape[0] and array.shape[0] % batch == 0:
        return array.shape[0] // batch
    raise QCompileError(
        f"'{info.name}' has shape {array.shape}, the model takes {info.shape}",
        node=where,
        remedy="give that shape, or a multiple of its first dimension",
    )


def save_npz(path: Path, results: Sequence[Feed]) -> None:
    """Writes outputs by name; several runs joined along the first axis. The file appears whole or not at all."""
    joined = {
        name: np.concatenate([np.atleast_1d(r[name]) for r in results]) if len(results) > 1 else results[0][name]
        for name in results[0]
    }
    new = path.with_name(f".{path.name}.new")
    try:
        with zipfile.ZipFile(new, "w", allowZip64=True) as file:  # numpy.savez cannot take an output named "file"
            for name, array in joined.items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array))
        new.replace(path)
    except OSError as error:
        raise QCompileError(
            f"cannot be written: {error.strerror}", node=str(path), remedy="choose another file"
        ) from None
    finally:
        new.unlink(missing_ok=True)
