"""From a name on the command line to a ``Target``."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.errors import QCompileError, nearest
from qcompile.runtime.driver import has_gpu
from qcompile.runtime.features import host_features
from qcompile.targets import arm, x86
from qcompile.targets.cuda import rows as cuda
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.rows import FAMILIES, ROWS
from qcompile.targets.target import Target

# The best row that this machine can run, of these, with the optional features that it has.
BEST = {"native": tuple(row for family in FAMILIES for row in family), "x86": x86.ROWS}
ALIASES = {"arm": arm.ROWS[1]}  # what nearly all machines of today can run


def select_row(name: str) -> Target | CudaTarget:
    """What ``select_target`` knows, and GPUs: "cuda" (every architecture), "cuda:sm_90", "cuda:sm_80,sm_90"."""
    return _gpu(name) or _select(name, [row.name for row in cuda.ROWS])


def select_target(name: str) -> Target:
    """The CPU target called ``name``: "native", "x86" (the best row here), "arm" (the dot-product row), a row
    ("x86-vnni", "cortex-a76"), a row and features ("x86-vnni+avx512vbmi").

    "_" and "-" mean the same, as do upper and lower case. Raises ``QCompileError`` with the nearest name for any other.
    """
    gpu = _gpu(name)
    return _select(name) if gpu is None else cpu_only(gpu)


def cpu_only(row: Target | CudaTarget) -> Target:
    """The row, if it is of a CPU. Raises ``QCompileError`` for a GPU's."""
    if isinstance(row, Target):
        return row
    raise QCompileError(f"{row.name} is a GPU; this works for CPU targets alone so far", remedy="build for it, and run")


def _gpu(name: str) -> CudaTarget | None:
    base, _, architectures = name.partition(":")
    row = next((row for row in cuda.ROWS if row.name == _plain(base)), None)
    return row.narrowed(architectures) if row is not None and architectures else row


def _select(name: str, more: Sequence[str] = ()) -> Target:
    """more: names of other rows, to be offered."""
    rows = {_plain(row.name): row for row in ROWS} | ALIASES
    base, *features = name.split("+")
    if _plain(base) in BEST:
        row = _best(BEST[_plain(base)])
    elif _plain(base) in rows:
        row = rows[_plain(base)]
    else:
        raise QCompileError(
            f"no target '{base}'", remedy=nearest(_plain(base), [*BEST, *ALIASES, *(r.name for r in ROWS), *more])
        )
    optional = {_plain(word): word for word, _ in row.optional}
    for feature in features:
        if _plain(feature) not in optional:
            known = nearest(feature, optional.values()) if optional else "it has none"
            raise QCompileError(f"target {row.name} has no optional feature '{feature}'", remedy=known)
    return row.extended(*(optional[_plain(f)] for f in features)) if features else row


def can_run(target: Target | CudaTarget) -> bool:
    """Whether this machine has every feature that the target needs; of a GPU target, a GPU."""
    if isinstance(target, CudaTarget):
        return has_gpu()
    return host_features().issuperset(target.features)


def _best(rows: tuple[Target, ...]) -> Target:
    for row in rows:
        if can_run(row):
            extra = [word for word, _ in row.optional if word in host_features()]
            return row.extended(*extra) if extra else row
    raise QCompileError(
        "this machine can run none of the targets",
        remedy=f"name one to build for: {', '.join(row.name for row in rows)}",
    )


def _plain(word: str) -> str:
    return word.strip().lower().replace("_", "-")
