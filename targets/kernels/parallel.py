"""When a kernel is worth more than one thread."""

from __future__ import annotations

_WAKE_CYCLES = 40_000  # work of this many cycles hides waking a second thread and waiting for it (some 10 microseconds)


def worth_threads(threads: int, cycles: float) -> bool:
    """Whether to share a kernel of about ``cycles`` cycles among ``threads``."""
    return threads > 1 and cycles > _WAKE_CYCLES
