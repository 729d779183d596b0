"""The one error people see: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 12  # names that one line has room for


class QCompileError(Exception):
    """Input that qcompile cannot use. Prints as one line; the command line exits with code 2.

    Parameters
    ----------
    reason: what is wrong, in words.
    node: the ONNX node, tensor, file or key it is about.
    remedy: what the reader can do.
    """

    def __init__(self, reason: str, *, node: str | None = None, remedy: str | None = None):
        self.reason, self.node, self.remedy = reason, node, remedy
        where = f"{node}: " if node else ""
        advice = f"; {remedy}" if remedy else ""
        super().__init__(" ".join(f"{where}{reason}{advice}".split()))


def nearest(name: str, valid: Iterable[str]) -> str:
    """A remedy that offers the nearest valid name: ``did you mean 'x86-vnni'? (one of: ...)``; a long list is cut."""
    options = list(valid)
    close = difflib.get_close_matches(name, options, n=1)
    guess = f"did you mean '{close[0]}'? " if close else ""
    shown = ", ".join(options[:_SHOWN]) + (f", ... {len(options)} in all" if len(options) > _SHOWN else "")
    return f"{guess}(one of: {shown})"
