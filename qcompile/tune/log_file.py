"""A tuning log as text: a line that names the format, then one JSON object a line for each record and search.

Two such files one after the other are one, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from qcompile.errors import QCompileError
from qcompile.tune.record import Record, Search, canonical, from_dict, to_dict

FORMAT = "qcompile.tuning-log"
VERSION = 1
HEAD = f'{{"format":"{FORMAT}"'  # how the first line begins
_KINDS: dict[str, type[Record] | type[Search]] = {"record": Record, "search": Search}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def lines(items: Iterable[Record | Search]) -> Iterator[str]:
    """The text of a file, line by line, newlines included."""
    yield f'{HEAD},"version":{VERSION}}}\n'
    for item in items:
        yield canonical({"kind": _NAMES[type(item)]} | to_dict(item)) + "\n"


def read(path: str | Path) -> Iterator[Record | Search]:
    """What a file holds, in its order. Raises ``QCompileError``, with the line, at the first that is not understood."""
    first = True
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                item = _item(line, f"{path}:{number}", first)
                first = False
                if item is not None:
                    yield item
    except UnicodeDecodeError:
        raise _foreign(str(path), "not text") from None
    except OSError as error:
        raise QCompileError(error.strerror or str(error), node=str(path)) from None
    if first:
        raise _foreign(str(path), "empty")


def _item(line: str, where: str, first: bool) -> Record | Search | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise _foreign(where, "not JSON" if first else "cut off or damaged: not JSON") from None
    if not isinstance(values, dict):
        raise _foreign(where, "not a JSON object")
    if first or "format" in values:
        _check_format(values, where)
        return None
    kind = _KINDS.get(str(values.pop("kind", None)))
    if kind is None:
        raise _foreign(where, "neither a record nor a search")
    try:
        return from_dict(kind, values)
    except ValueError as error:
        raise _foreign(where, str(error)) from None


def _check_format(values: dict[str, Any], where: str) -> None:
    if values.get("format") != FORMAT:
        raise _foreign(where, "not the first line of a tuning log")
    if values.get("version") != VERSION:
        raise QCompileError(
            f"a tuning log in version {values.get('version')} of its format; this qcompile reads version {VERSION}",
            node=where,
            remedy="use the qcompile that wrote it, or a newer one",
        )


def _foreign(where: str, why: str) -> QCompileError:
    return QCompileError(why, node=where, remedy="give a file written by 'qcompile log export'")
