"""Times and sizes on the command line, and files that are written whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

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


def write_whole(path: Path, text: str) -> None:
    """Writes a file, or leaves the older one as it is."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text)
            file.close()
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
