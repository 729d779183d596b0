"""Simpler ways to choose formats, to compare the integer program with: greedy by loss per saving, and HAWQ's score."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

from qcompile.assign.assignment import OBJECTIVES, Assignment, Budgets, chosen_objective, explained
from qcompile.assign.assignment import assign as solve
from qcompile.assign.table import FLOAT, Entry, Group, SensitivityTable
from qcompile.assign.totals import Parts, Totals, totals
from qcompile.assign.words import NAMES, amount
from qcompile.errors import QCompileError

HAWQ = "hawq"  # key of ``Entry.scores``
_KEPT = 1 + 1e-9  # sums of floats in another order


def greedy(
    table: SensitivityTable,
    *,
    max_loss: float | None = None,
    max_seconds: float | None = None,
    max_bytes: float | None = None,
    objective: str | None = None,
) -> Assignment:
    """From all fp32, again and again the change of one group that costs the least loss per second (or byte) saved.

    With objective "accuracy" until the budgets are met, of latency first, then of size; else as long as something is
    saved within ``max_loss``. No group comes back to a format that it had.
    Parameters as for ``assign``. Raises ``QCompileError`` if it ends outside a budget: another choice may be inside.
    """
    budgets = Budgets(max_loss, max_seconds, max_bytes)
    objective = chosen_objective(objective, budgets)
    formats = {group.name: FLOAT for group in table.groups}
    now = totals(table, formats)
    left = {(group.name, name) for group in table.groups for name in group.entries if name != FLOAT}
    searches = {saving: _Search(table, saving) for saving in ("seconds", "bytes")}
    while True:
        wanted = _exceeded(now, budgets, but="loss") if objective == "accuracy" else [OBJECTIVES[objective]]
        room = math.inf if max_loss is None else max_loss - now.loss
        move = searches[wanted[0]].best(formats, room, left) if wanted else None
        if move is None:
            break
        formats[move[0]] = move[1]
        left.discard(move)
        for search in searches.values():
            search.changed(move[0])
        now = totals(table, formats)
    for name in _exceeded(now, budgets):
        limit, reached = (amount(table, name, x) for x in (getattr(budgets, name), getattr(now, name)))
        reason = f"the greedy choice ends at a {NAMES[name]} of {reached}, over the budget of {limit}"
        raise QCompileError(reason, remedy="let the integer program choose, or raise the budget")
    return explained(table, formats, now, objective, budgets, None, "greedy")


def hawq(table: SensitivityTable, *, max_seconds: float | None = None, max_bytes: float | None = None) -> Assignment:
    """The integer program with HAWQ's score in place of the measured loss (arXiv 1911.03852, 2011.10680).

    Of a layer in a format ``Omega = mean(trace of the Hessian) * ||Q(W) - W||^2``, in ``Entry.scores["hawq"]``; the sum
    over layers is minimized within budgets of latency and size. ``Assignment.totals`` has the table's own loss.
    """
    scored = dataclasses.replace(table, groups=tuple(map(_by_score, table.groups)), pairs=(), metric="of HAWQ's score")
    found = solve(scored, max_seconds=max_seconds, max_bytes=max_bytes, objective="accuracy")
    sums = totals(table, found.formats)
    return explained(table, found.formats, sums, "accuracy", found.budgets, found.gap, HAWQ)


def rivals(table: SensitivityTable, within: Sequence[Totals]) -> dict[str, list[Totals | None]]:
    """What "greedy" and "hawq" reach within the latency and size of each of ``within``; None where they end outside.

    Without HAWQ's scores in the table there is no "hawq".
    """
    found: dict[str, list[Totals | None]] = {"greedy": [], HAWQ: []}
    scored = all(HAWQ in e.scores for g in table.groups for name, e in g.entries.items() if name != FLOAT)
    for sums in within:
        for name, choose in (("greedy", greedy), (HAWQ, hawq)) if scored else (("greedy", greedy),):
            try:
                found[name].append(choose(table, max_seconds=sums.seconds * _KEPT, max_bytes=sums.bytes).totals)
            except QCompileError:
                found[name].append(None)
    return {name: reached for name, reached in found.items() if reached}


def _by_score(group: Group) -> Group:
    entries = {}
    for name, entry in group.entries.items():
        if HAWQ not in entry.scores and name != FLOAT:
            remedy = "analyze with second-order scores (--hessian 4)"
            raise QCompileError(f"no HAWQ score in {name}", node=group.name, remedy=remedy)
        entries[name] = dataclasses.replace(entry, alone=entry.scores.get(HAWQ, 0.0))
    return dataclasses.replace(group, entries=entries)


def _exceeded(now: object, budgets: Budgets, but: str = "") -> list[str]:
    return [q for q, limit in budgets.limits.items() if q != but and getattr(now, q) > limit]


class _Search:
    """Remembers the moves of each group until it, or what its costs depend on, changes."""

    def __init__(self, table: SensitivityTable, saving: str):
        self._groups = {group.name: group for group in table.groups}
        self._parts, self._saving = Parts(table), saving
        self._moves: dict[str, list[tuple[float, float, str]]] = {}

    def changed(self, group: str) -> None:
        for name in self._parts.neighbours(group):
            self._moves.pop(name, None)

    def best(
        self, formats: Mapping[str, str], room: float, left: Collection[tuple[str, str]]
    ) -> tuple[str, str] | None:
        """Of ``left``, the cheapest change that saves something and costs at most ``room`` of loss: group, format."""
        best, cheapest = None, math.inf
        for name, group in self._groups.items():
            if name not in self._moves:
                self._moves[name] = self._moves_of(formats, name, group.entries)
            for price, loss, format_name in self._moves[name]:
                if loss <= room and price < cheapest and (name, format_name) in left:
                    best, cheapest = (name, format_name), price
        return best

    def _moves_of(
        self, formats: Mapping[str, str], name: str, entries: Mapping[str, Entry]
    ) -> list[tuple[float, float, str]]:
        """Loss per saving, loss, and format."""
        now = self._parts(formats, name, formats[name])
        moves = []
        for other in entries:
            then = self._parts(formats, name, other)
            saved, loss = getattr(now, self._saving) - getattr(then, self._saving), then.loss - now.loss
            if saved > 1e-12 * getattr(now, self._saving):
                moves.append((loss / saved, loss, other))
        return moves
