"""Builds candidates of a GPU's workload into machine code; runs in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.errors import QCompileError
from qcompile.targets.cuda.compiler import find_compiler
from qcompile.targets.cuda.program import templates
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.cuda.text import NAME
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.tune.arrays import constants_of
from qcompile.tune.builder import Build, Candidates, one_by_one, reason, written_beside


@dataclass(frozen=True, slots=True)
class Candidate:
    """How a kernel is launched. constants: numbers of the arrays that it takes between x and the rest."""

    name: str
    grid: int
    block: int
    shared: int
    constants: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BuiltKernels(Candidates):
    """Machine code. constants: an npz file of arrays by number; equal ones are one. candidates: of ``members``."""

    candidates: tuple[Candidate, ...]

    @property
    def by_member(self) -> dict[int, Candidate]:
        return dict(zip(self.members, self.candidates, strict=True))


def build_kernels(
    workload: Workload, knobs: Sequence[Any], members: Sequence[int], target: CudaTarget, stem: Path
) -> Build:
    """Candidates ``members`` of ``knobs`` in one cubin ``stem``.cubin; each in its own where one does not compile.

    Raises ``QCompileError`` for what is no candidate's fault: no compiler, no space.
    """
    compiler, template, numbers = find_compiler(), TEMPLATES[workload.operator], constants_of(workload)
    texts: list[str] = []
    found: dict[int, Candidate] = {}
    errors: dict[int, str] = {}
    arrays: dict[bytes, int] = {}
    stored: list[np.ndarray] = []
    for i in members:
        try:
            kernel, constants = template.build(
                workload.spec, numbers, workload.x, workload.out, workload.residual, target, knobs[i]
            )
        except Exception as error:
            errors[i] = reason(error)
            continue
        for array in constants:
            if arrays.setdefault(array.tobytes(), len(stored)) == len(stored):
                stored.append(array)
        name = f"candidate_{i}"
        texts.append(kernel.text.replace(NAME, name))
        used = tuple(arrays[array.tobytes()] for array in constants)
        found[i] = Candidate(name, kernel.grid, kernel.block, kernel.shared, used)
    if not found:
        return Build((), errors)
    try:
        code = compiler.cubin(templates() + "\n".join(texts), target.architecture).code
    except QCompileError as error:
        if len(found) == 1:
            return Build((), errors | dict.fromkeys(found, reason(error)))
        return one_by_one(lambda i, path: build_kernels(workload, knobs, [i], target, path), found, stem, errors)
    library, constants_file = stem.with_suffix(".cubin"), stem.with_suffix(".npz")
    with written_beside(stem):
        library.write_bytes(code)
        np.savez(constants_file, *stored)
    return Build((BuiltKernels(library, constants_file, tuple(found), tuple(found.values())),), errors)
