"""HiGHS prints remarks to the process's standard output, where results for machines go."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def no_output() -> Iterator[None]:
    """Discards what C and C++ code writes to standard output meanwhile; what was written before is kept."""
    libc = ctypes.CDLL(None)
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError, AttributeError):  # no standard output: nothing to keep clean
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    libc.fflush(None)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
