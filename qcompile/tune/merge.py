"""Logs into a log, and a log into a file of JSON lines. What is new appears whole, what was there is never lost."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qcompile.errors import QCompileError
from qcompile.tune import log_file
from qcompile.tune.database import in_words, new_file
from qcompile.tune.log import TuningLog, is_text
from qcompile.tune.record import Record, Search


def merge(sources: Sequence[Path], out: Path) -> tuple[int, int]:
    """Adds all that ``sources`` (logs and exported files) hold to the log ``out``, made if it is not there.

    Returns how many records the sources had, and how many of them were new to ``out``.
    """
    items = [item for source in sources for item in _items(source)]
    count = sum(isinstance(item, Record) for item in items)
    if out.exists() or out.suffix == ".jsonl":
        with TuningLog.open(out) as log:
            return count, log.update(items)
    with in_words(out), new_file(out) as new, TuningLog.open(new) as log:
        return count, log.update(items)


def export(source: Path, out: Path) -> int:
    """Writes a log to a file of JSON lines; returns the number of records.

    Raises ``QCompileError`` if ``out`` is anything but a new name or an older exported log.
    """
    if out.exists() and not _is_export(out):
        raise QCompileError("not an exported log, so it is left alone", node=str(out), remedy="name a new file")
    with TuningLog.open(source, read_only=True) as log, in_words(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            new = Path(folder) / out.name
            with open(new, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(log_file.lines(log.items()))
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, out)
        return len(log)


def _items(source: Path) -> list[Record | Search]:
    if is_text(source):
        return list(log_file.read(source))
    with TuningLog.open(source, read_only=True) as log:
        return list(log.items())


def _is_export(path: Path) -> bool:
    if not path.is_file():
        return False
    with in_words(path), open(path, "rb") as file:
        return file.read(len(log_file.HEAD)) == log_file.HEAD.encode()
