"""The choice of formats as an integer program, solved by HiGHS through ``scipy.optimize.milp``."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.assign.quiet import no_output
from qcompile.assign.table import FLOAT, OUTSIDE, Cast, Pair, SensitivityTable
from qcompile.assign.totals import Totals, is_wider, totals
from qcompile.errors import QCompileError

QUANTITIES = ("loss", "seconds", "bytes")  # of ``Totals``: what is minimized, or kept within a limit
GAP = 1e-4
TIME_LIMIT = 10.0  # seconds
_TIE = 1e-6  # weight of the other quantities: of choices that are equally good, the one that is better otherwise
_KEPT = 1e-9  # relative: sums of floats in another order
_ABSOLUTE = 1e-6  # HiGHS stops at this absolute gap, whatever relative one it is asked for
_ROUNDS = 8  # solutions until one is within the limits to the last digit


@dataclass(frozen=True, slots=True)
class Solution:
    """formats: group -> format. gap: the optimum is at most this share of the objective's value below it."""

    formats: dict[str, str]
    totals: Totals
    gap: float


@dataclass(frozen=True, slots=True)
class _Is:
    """A number that is 1 if something holds, else 0: the sum of some columns, and a constant."""

    columns: tuple[int, ...]
    constant: float = 0.0


class Program:
    """Columns: x[group, format] in {0, 1}, one of each group's is 1; and z in [0, 1] for each cast and pair.

    Where a tensor of dtype a is cast to b, for every group that may read it so::

        z[tensor, a, b] >= (its producer has a format of a) + (the reader has one of b) - 1

    and if b is wider, so that its producer could write that in the first place, for every other reader in a besides::

        z[tensor, a, b] >= (producer: a) + (reader: b) + (other reader: a) - 2

    A pair's loss counts by z >= x + x' - 1 and, if it is negative, z <= x and z <= x'.
    """

    def __init__(self, table: SensitivityTable):
        self.table = table
        self.choices = [(group.name, name) for group in table.groups for name in group.entries]
        self._column = {choice: i for i, choice in enumerate(self.choices)}
        entries = [entry for group in table.groups for entry in group.entries.values()]
        self._costs: dict[str, list[float]] = {
            "loss": [entry.alone for entry in entries],
            "seconds": [entry.seconds for entry in entries],
            "bytes": [float(entry.bytes) for entry in entries],
        }
        self._constant = {"loss": 0.0, "seconds": table.rest_seconds, "bytes": float(table.rest_bytes)}
        self._rows: list[tuple[dict[int, float], float, float]] = []  # coefficients by column, lower, upper
        self._activations = {f.name: f.activations for f in table.formats}
        for group in table.groups:
            self._rows.append(({self._column[group.name, name]: 1.0 for name in group.entries}, 1.0, 1.0))
        for cast in table.casts:
            self._add_cast(cast)
        for pair in table.pairs:
            self._add_pair(pair)

    def solve(
        self, objective: str, limits: Mapping[str, float], gap: float = GAP, time_limit: float = TIME_LIMIT
    ) -> Solution | None:
        """The least ``objective`` within ``limits`` (both of ``QUANTITIES``), None if nothing is within them.

        Raises ``QCompileError`` if ``time_limit`` (seconds) ends before anything is found.
        """
        if not self.choices:  # HiGHS wants a column
            sums = totals(self.table, {})
            kept = all(getattr(sums, name) <= limit for name, limit in limits.items())
            return Solution({}, sums, 0.0) if kept else None
        end = time.monotonic() + time_limit
        bounds = {name: limit - self._constant[name] for name, limit in limits.items()}
        scale, best = self._range(objective), None
        for _ in range(_ROUNDS):
            try:
                found = self._solve_once(objective, scale, bounds, gap, max(0.1, end - time.monotonic()))
            except QCompileError:
                if best is None:
                    raise
                return best
            if found is None:
                return best
            over = {q: getattr(found.totals, q) - limit for q, limit in limits.items()}
            beyond = [q for q, excess in over.items() if excess > _KEPT * abs(limits[q])]
            for q in beyond:
                bounds[q] -= over[q] + _KEPT * abs(limits[q])
            value = abs(getattr(found.totals, objective))
            fine = scale * _ABSOLUTE <= value * max(gap, _ABSOLUTE)
            if not beyond:
                best = found
            if (best is not None and (fine or value == 0)) or time.monotonic() > end:
                break
            scale = scale if fine or value == 0 else value
        return best

    def _solve_once(
        self,
        objective: str,
        scale: float,
        bounds: Mapping[str, float],
        gap: float,
        time_limit: float,
    ) -> Solution | None:
        from scipy.optimize import Bounds, LinearConstraint, milp

        count = len(self._costs["loss"])
        cost = np.array(self._costs[objective]) / scale
        for other in set(QUANTITIES) - {objective}:
            cost += _TIE * np.array(self._costs[other]) / self._range(other)
        matrix, lower, upper = self._matrix(bounds, count)
        with no_output():
            result = milp(
                cost,
                integrality=np.arange(count) < len(self.choices),
                bounds=Bounds(0, 1),
                constraints=LinearConstraint(matrix, lower, upper),
                options={"mip_rel_gap": gap, "time_limit": time_limit},
            )
        if result.x is None:
            if result.status == 2:
                return None
            reason = f"no assignment found in {time_limit:.0f} s ({result.message})"
            raise QCompileError(reason, remedy="allow more time, or a larger gap")
        formats = {}
        for (group, name), x in zip(self.choices, result.x, strict=False):
            if x > 0.5:
                formats[group] = name
        sums = totals(self.table, formats)
        value = abs(getattr(sums, objective))
        missing = max(0.0, result.fun - result.mip_dual_bound) * scale
        return Solution(formats, sums, missing / value if value else 0.0)

    def _matrix(self, bounds: Mapping[str, float], count: int) -> tuple:
        """All rows, and those of the limits, each divided by its bound so that the solver's tolerance suits it."""
        from scipy.sparse import csr_array

        rows = list(self._rows)
        for name, bound in bounds.items():
            costs = np.array(self._costs[name])
            unit = abs(bound) or min(np.abs(costs[costs != 0]), default=1.0)
            rows.append(({i: c / unit for i, c in enumerate(costs) if c}, -math.inf, bound / unit))
        data = [(i, j, value) for i, (row, *_) in enumerate(rows) for j, value in row.items()]
        i, j, values = zip(*data, strict=True) if data else ((), (), ())
        matrix = csr_array((values, (i, j)), shape=(len(rows), count))
        return matrix, [row[1] for row in rows], [row[2] for row in rows]

    def _range(self, name: str) -> float:
        """How far apart the best and the worst choice are in a quantity."""
        values = np.array(self._costs[name][: len(self.choices)])
        groups = [group for group, _ in self.choices]
        spread: dict[str, tuple[float, float]] = {}
        for group, value in zip(groups, values, strict=True):
            low, high = spread.get(group, (value, value))
            spread[group] = min(low, value), max(high, value)
        return float(sum(high - low for low, high in spread.values())) or 1.0

    def _new_column(self, **costs: float) -> int:
        for name in QUANTITIES:
            self._costs[name].append(costs.get(name, 0.0))
        return len(self._costs["loss"]) - 1

    def _reads(self, group: str) -> dict[str, tuple[str, _Is]]:
        """dtype -> (a format of it, whether the group has one of it)."""
        if group == OUTSIDE:
            return {self._activations[FLOAT]: (FLOAT, _Is((), 1.0))}
        result: dict[str, tuple[str, _Is]] = {}
        for owner, name in self.choices:
            if owner == group:
                dtype = self._activations[name]
                columns = result[dtype][1].columns if dtype in result else ()
                result[dtype] = name, _Is((*columns, self._column[owner, name]))
        return result

    def _add_cast(self, cast: Cast) -> None:
        readers = [self._reads(group) for group in cast.consumers]
        for dtype, (source, made) in self._reads(cast.producer).items():
            for wanted in dict.fromkeys(d for reader in readers for d in reader if d != dtype):
                result = next(reader[wanted][0] for reader in readers if wanted in reader)
                seconds = self.table.cast_seconds(cast.elements, source, result)
                if not seconds:
                    continue
                z = self._new_column(seconds=seconds)
                for i, reader in enumerate(readers):
                    if wanted not in reader:
                        continue
                    if not is_wider(self.table, source, result):
                        self._at_least(z, [made, reader[wanted][1]])
                        continue
                    for j, other in enumerate(readers):
                        if i != j and dtype in other:
                            self._at_least(z, [made, reader[wanted][1], other[dtype][1]])

    def _add_pair(self, pair: Pair) -> None:
        z = self._new_column(loss=pair.extra)
        both = [self._column[choice] for choice in zip(pair.groups, pair.formats, strict=True)]
        self._at_least(z, [_Is((x,)) for x in both])
        if pair.extra < 0:
            self._rows.extend(({z: 1.0, x: -1.0}, -math.inf, 0.0) for x in both)

    def _at_least(self, z: int, terms: Sequence[_Is]) -> None:
        """z >= sum of terms - (their number - 1): 1 if all hold."""
        row = {z: 1.0}
        for term in terms:
            for column in term.columns:
                row[column] = row.get(column, 0.0) - 1.0
        self._rows.append((row, sum(term.constant for term in terms) - (len(terms) - 1), math.inf))
