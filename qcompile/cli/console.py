"""Where text goes: results to stdout, everything else to stderr; what moves, only to a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000  # columns: rows are never folded; a narrow terminal wraps them, which keeps words whole


def show(content: Table | str) -> None:
    """Prints a result."""
    if isinstance(content, str):
        _print(content)
        return
    console = Console(width=WIDE)
    with console.capture() as drawn:
        console.print(content)
    _print("\n".join(line.rstrip() for line in drawn.get().splitlines() if line.strip()))


def show_json(value: Any) -> None:
    _print(json.dumps(value, indent=1))


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has seen enough: `qcompile inspect out/ | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def remark(text: str) -> None:
    """Prints a line beside the result: a note, a warning."""
    print(text, file=sys.stderr, flush=True)


def error_line(text: str) -> None:
    remark("error: " + " ".join(text.split()))


@contextlib.contextmanager
def step(text: str) -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is going on; the function that it gives replaces the text."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda more: None
        return
    with console.status(Text(text)) as status:
        yield lambda more: status.update(Text(f"{text}: {more}"))
