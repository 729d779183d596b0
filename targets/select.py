"""From a name on the command line to a ``Target``."""

from __future__ import annotations

from qcompile.errors import QCompileError, nearest
from qcompile.runtime.features import host_features
from qcompile.targets.target import Target
from qcompile.targets.x86 import ROWS

BEST = ("native", "x86")  # the best row that this machine can run, with the optional features that it has


def select_target(name: str) -> Target:
    """The target called ``name``: "native" or "x86", a row ("x86-vnni"), a row and features ("x86-vnni+avx512vbmi").

    "_" and "-" mean the same, as do upper and lower case. Raises ``QCompileError`` with the nearest name for any other.
    """
    rows = {_plain(row.name): row for row in ROWS}
    base, *features = name.split("+")
    if _plain(base) in BEST:
        row = _best()
    elif _plain(base) in rows:
        row = rows[_plain(base)]
    else:
        raise QCompileError(f"no target '{base}'", remedy=nearest(_plain(base), [*BEST, *(row.name for row in ROWS)]))
    optional = {_plain(word): word for word, _ in row.optional}
    for feature in features:
        if _plain(feature) not in optional:
            known = nearest(feature, optional.values()) if optional else "it has none"
            raise QCompileError(f"target {row.name} has no optional feature '{feature}'", remedy=known)
    return row.extended(*(optional[_plain(f)] for f in features)) if features else row


def can_run(target: Target) -> bool:
    """Whether this machine has every feature that the target needs."""
    return host_features().issuperset(target.features)


def _best() -> Target:
    for row in ROWS:
        if can_run(row):
            extra = [word for word, _ in row.optional if word in host_features()]
            return row.extended(*extra) if extra else row
    raise QCompileError(
        "this machine can run none of the targets",
        remedy=f"name one to build for: {', '.join(row.name for row in ROWS)}",
    )


def _plain(word: str) -> str:
    return word.strip().lower().replace("_", "-")
