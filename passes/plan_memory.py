"""Where every intermediate buffer lies in one workspace: buffers in use at the same time do not overlap.

Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", MLSys 2020, section 5):
the largest buffer first, each at the lowest offset where no neighbour in time stands in its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A buffer of ``size`` bytes, written first at step ``first`` and read last at step ``last``."""

    size: int
    first: int
    last: int


def plan_memory(buffers: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offsets in bytes, aligned to ``ALIGNMENT``, and the size of the whole."""
    offsets = [0] * len(buffers)
    placed: list[int] = []
    for i in sorted(range(len(buffers)), key=lambda i: (-buffers[i].size, buffers[i].first, i)):
        mine = buffers[i]
        around = sorted(
            (offsets[j], offsets[j] + buffers[j].size)
            for j in placed
            if buffers[j].first <= mine.last and mine.first <= buffers[j].last
        )
        at = 0
        for start, end in around:
            if at + mine.size <= start:
                break
            at = max(at, -(-end // ALIGNMENT) * ALIGNMENT)
        offsets[i] = at
        placed.append(i)
    total = max((offset + b.size for offset, b in zip(offsets, buffers, strict=True)), default=0)
    return offsets, total
