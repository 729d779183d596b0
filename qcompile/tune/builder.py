"""Builds candidates into libraries; runs in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.artifact import write_library
from qcompile.compile import compile_module
from qcompile.errors import QCompileError
from qcompile.targets.kernels.conv import Kernel
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target
from qcompile.tune.arrays import constants_of
from qcompile.tune.harness import Harness, Packing, harness

Frame = Callable[[Sequence[Kernel], Storage, Storage, Storage | None], Harness]


@dataclass(frozen=True, slots=True)
class Candidates:
    """A library of candidates of one workload, and beside it the constants that they share.

    members: which of the candidates, in the library's order.
    """

    library: Path
    constants: Path
    members: tuple[int, ...]

    def remove(self) -> None:
        self.library.unlink(missing_ok=True)
        self.constants.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Built(Candidates):
    """For a CPU; constants: ``Harness.constants``. packings: of the constants of each."""

    packings: tuple[Packing, ...]


@dataclass(frozen=True, slots=True)
class Build:
    """What became of some candidates. errors: index -> why it could not be built."""

    libraries: tuple[Any, ...]  # of ``Candidates``
    errors: dict[int, str]


def build(
    workload: Workload,
    knobs: Sequence[object],
    members: Sequence[int],
    target: Target,
    stem: Path,
    frame: Frame = harness,
) -> Build:
    """Candidates ``members`` of ``knobs`` in one library ``stem``.so; each in its own where one does not compile.

    frame: what is built around the kernels, of their module and tensors.

    Raises ``QCompileError`` for what is no candidate's fault: no linker, no space.
    """
    template, constants = TEMPLATES[workload.operator], constants_of(workload)
    kernels, errors = {}, {}
    for i in members:
        try:
            kernels[i] = template.build(
                workload.spec, constants, workload.x, workload.out, workload.residual, target, knobs[i]
            )
        except Exception as error:
            errors[i] = reason(error)
    if not kernels:
        return Build((), errors)
    made = frame(list(kernels.values()), workload.x, workload.out, workload.residual)
    try:
        module = compile_module(made.module, target)
    except Exception as error:
        if len(kernels) == 1:
            return Build((), errors | dict.fromkeys(kernels, reason(error)))
        return one_by_one(lambda i, path: build(workload, knobs, [i], target, path, frame), kernels, stem, errors)
    library, numbers = stem.with_suffix(".so"), stem.with_suffix(".npy")
    with written_beside(stem):
        write_library(module, library, target.triple)
        np.save(numbers, made.constants)
    return Build((Built(library, numbers, tuple(kernels), made.packings),), errors)


def one_by_one(
    build_one: Callable[[int, Path], Build], members: Iterable[int], stem: Path, errors: dict[int, str]
) -> Build:
    """What becomes of candidates that do not compile together; errors: of the others."""
    parts = [build_one(i, stem.with_name(f"{stem.name}-{i}")) for i in members]
    for part in parts:
        errors = errors | part.errors
    return Build(tuple(library for part in parts for library in part.libraries), errors)


@contextmanager
def written_beside(stem: Path) -> Iterator[None]:
    """Says what to do where files cannot be written."""
    try:
        yield
    except OSError as error:
        raise QCompileError(
            f"candidates cannot be written: {error.strerror or error}",
            node=str(stem.parent),
            remedy="free some space there, or set TMPDIR",
        ) from None


def reason(error: BaseException) -> str:
    """One line that says what went wrong; TVM's errors end with it."""
    if isinstance(error, QCompileError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
