"""Times and sizes on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qcompile.errors import QCompileError

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_BYTES = {"b": 1, "": 1, "kb": 1 << 10, "kib": 1 << 10, "mb": 1 << 20, "mib": 1 << 20, "gb": 1 << 30, "gib": 1 << 30}


def seconds(text: str | None, option: str = "--latency-budget") -> float | None:
    """ "5ms" -> 0.005; "31us", "1.5s". A number without a unit is refused: nobody knows what it means."""
    return _amount(text, _SECONDS, option, "write 5ms, 800us or 1s")


def nbytes(text: str | None, option: str = "--size-budget") -> float | None:
    """ "2MB" -> 2 * 1024 * 1024, as sizes are printed; "512KB", "90000"."""
    return _amount(text, _BYTES, option, "write 2MB, 512KB or a number of bytes")


def _amount(text: str | None, units: Mapping[str, float], option: str, remedy: str) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*([a-z]*)\s*", text.lower())
    try:
        value = float(match[1]) if match else None
    except ValueError:
        value = None
    if match is None or value is None or match[2] not in units:
        raise QCompileError(f"'{text}' is no amount", node=option, remedy=remedy)
    return value * units[match[2]]
