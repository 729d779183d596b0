"""The front of accuracy, latency and size: what is reachable, and what each point costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from qcompile.assign.program import GAP, QUANTITIES, TIME_LIMIT, Program
from qcompile.assign.table import SensitivityTable
from qcompile.assign.totals import Totals, totals, uniform_formats

POINTS, SIZES = 12, 3
_SAME = 1e-6  # relative difference that is none


@dataclass(frozen=True, slots=True)
class Point:
    """One choice of formats; ``plan_of_formats(table, point.formats)`` is the plan of it.

    name: the format if it is uniform, else "". front: whether no other point is as good in all and better in one.
    """

    formats: Mapping[str, str]
    totals: Totals
    name: str = ""
    front: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", MappingProxyType(dict(self.formats)))


def pareto(
    table: SensitivityTable,
    *,
    points: int = POINTS,
    sizes: int = SIZES,
    gap: float = GAP,
    time_limit: float = TIME_LIMIT,
    report: Callable[[int, int], None] = lambda done, all_: None,
) -> list[Point]:
    """Points of the front and all uniform formats, by latency, then loss.

    The loss is minimized within ``points`` limits of latency, evenly spread between the fastest choice and the most
    accurate one; without a limit of size, and within ``sizes`` of them between the smallest choice and fp32. Each point
    is an optimum (of ``gap``), so no choice at all is better in everything; there may be others between two points.

    time_limit: seconds for each. report: called with the number of optima found so far, and of all.
    """
    program, found = Program(table), [_uniform(table, f.name) for f in table.formats]
    jobs = [(level, i) for level in range(sizes + 1) for i in range(points)]
    smallest = program.solve("bytes", {}, gap, time_limit)
    largest = max(point.totals.bytes for point in found)
    for level in range(sizes + 1):
        limits: dict[str, float] = {}
        if level and smallest is not None:
            limits["bytes"] = smallest.totals.bytes + (largest - smallest.totals.bytes) * (level - 1) / sizes
        ends = [program.solve(q, limits, gap, time_limit) for q in ("seconds", "loss")]
        if None in ends:
            continue
        fast, slow = (end.totals.seconds for end in ends)
        found += [Point(end.formats, end.totals) for end in ends]
        for i in range(1, points - 1):
            limits["seconds"] = fast + (slow - fast) * i / (points - 1)
            solution = program.solve("loss", limits, gap, time_limit)
            if solution is not None:
                found.append(Point(solution.formats, solution.totals))
            report(level * points + i + 1, len(jobs))
    return marked(found)


def marked(points: Sequence[Point]) -> list[Point]:
    """``points`` by latency, each choice once, with ``front`` set; those behind it are left out unless uniform."""
    once: dict[tuple[str, ...], Point] = {}
    for point in points:
        once.setdefault(tuple(point.formats.values()), point)
    result = []
    for point in once.values():
        front = not any(dominates(other.totals, point.totals) for other in once.values())
        if front or point.name:
            result.append(Point(point.formats, point.totals, point.name, front))
    return sorted(result, key=lambda p: (p.totals.seconds, p.totals.loss, p.totals.bytes))


def dominates(one: Totals, other: Totals) -> bool:
    """Whether ``one`` is as good in all quantities and better in one, by more than rounding."""
    better = False
    for name in QUANTITIES:
        a, b = getattr(one, name), getattr(other, name)
        tolerance = _SAME * max(abs(a), abs(b))
        if a > b + tolerance:
            return False
        better = better or a < b - tolerance
    return better


def _uniform(table: SensitivityTable, name: str) -> Point:
    formats = uniform_formats(table, name)
    return Point(formats, totals(table, formats), name)
