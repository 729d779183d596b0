"""What is measured of candidates, and what measures them: the words that search, log and measurers share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qcompile.targets.kernels.workload import Workload


@dataclass(frozen=True, slots=True)
class Measurement:
    """costs: of one call, in the measurer's unit, in the order in which they were measured; () if the candidate failed.

    Of kernels so short that they run more than 32 times, each timing is the median of some calls in a row.
    error: why it failed, "" if it did not.
    """

    costs: tuple[float, ...]
    error: str = ""

    @property
    def minimum(self) -> float:
        """Infinite for a failure."""
        return min(self.costs, default=math.inf)

    @property
    def spread(self) -> float:
        """How far the median is above the minimum, as a part of it: large where neighbours made noise."""
        return statistics.median(self.costs) / self.minimum - 1 if self.costs else 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Candidates of one workload that are compared with each other.

    knobs: of the workload's template. footprint: bytes of weights that are walked through between two runs of a
    candidate, as the other layers of a network would do.
    """

    workload: Workload
    knobs: tuple[Any, ...]
    footprint: int


class Measurer(Protocol):
    """device, cores: CPU model of the machine that measures, and how many cores it has.

    workers: how many batches are built at the same time; so many at least should be measured in one call.
    unit: of what is measured, one of ``record.UNITS``. exact: whether measuring again gives the same.
    compilers: names and versions of what builds candidates, beside LLVM; for the records.
    """

    device: str
    cores: int
    workers: int
    unit: str
    exact: bool
    compilers: tuple[tuple[str, str], ...]

    def measure_many(self, batches: Sequence[Batch]) -> Iterator[list[Measurement]]:
        """The measurements of each batch, in order; those of a batch when it has been measured."""
        ...

    def measure(self, workload: Workload, knobs: Sequence[Any], footprint: int) -> list[Measurement]:
        """Of one batch alone."""
        ...
