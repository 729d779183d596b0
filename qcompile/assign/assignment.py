"""``assign``: the best format of each group within budgets; ``Assignment``: the choice, its figures, its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from qcompile.assign.combine import combine
from qcompile.assign.program import GAP, TIME_LIMIT, Program
from qcompile.assign.table import FLOAT, SensitivityTable
from qcompile.assign.totals import Totals
from qcompile.assign.why import reasons
from qcompile.assign.words import NAMES, amount
from qcompile.errors import QCompileError, nearest
from qcompile.plan import LayerPlan, QuantPlan

OBJECTIVES = {"accuracy": "loss", "latency": "seconds", "size": "bytes"}


@dataclass(frozen=True, slots=True)
class Budgets:
    """What must not be exceeded; None for no limit. loss in units of the table's metric."""

    loss: float | None = None
    seconds: float | None = None
    bytes: float | None = None

    @property
    def limits(self) -> dict[str, float]:
        """Those that are set, by quantity."""
        limits = {name: getattr(self, name) for name in NAMES}
        return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Assignment:
    """One format for each group.

    formats: by group. totals: predicted for the whole model. objective: "accuracy", "latency" or "size".
    gap: no choice within the budgets is better by more than this share; None where the method cannot tell.
    method: "program", "greedy" or "hawq". why: by layer.
    """

    formats: Mapping[str, str]
    totals: Totals
    objective: str
    budgets: Budgets
    gap: float | None
    method: str
    why: Mapping[str, str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", MappingProxyType(dict(self.formats)))
        object.__setattr__(self, "why", MappingProxyType(dict(self.why)))


def assign(
    table: SensitivityTable,
    *,
    max_loss: float | None = None,
    max_seconds: float | None = None,
    max_bytes: float | None = None,
    objective: str | None = None,
    gap: float = GAP,
    time_limit: float = TIME_LIMIT,
) -> Assignment:
    """The assignment with the least loss, latency or size within the budgets on the others.

    Parameters
    ----------
    max_loss, max_seconds, max_bytes: budgets, in units of the table's metric, seconds of one call, bytes of constants.
    objective: "accuracy", "latency" or "size"; by default accuracy, or latency if only the loss has a budget.
    gap: how far from the optimum the search may end, relative. time_limit: seconds after which it ends anyway.

    Raises
    ------
    QCompileError: if no assignment keeps the budgets; it says what the best reachable is.
    """
    budgets = Budgets(max_loss, max_seconds, max_bytes)
    objective = chosen_objective(objective, budgets)
    program = Program(table)
    solution = program.solve(OBJECTIVES[objective], budgets.limits, gap, time_limit)
    if solution is None:
        raise unreachable(program, budgets, gap, time_limit)
    return explained(table, solution.formats, solution.totals, objective, budgets, solution.gap, "program")


def to_plan(assignment: Assignment, table: SensitivityTable) -> QuantPlan:
    """The plan of an assignment, made of the plans in the table; ``LayerPlan.why`` has the reasons."""
    return plan_of_formats(table, assignment.formats, assignment.why)


def plan_of_formats(
    table: SensitivityTable, formats: Mapping[str, str], why: Mapping[str, str] | None = None
) -> QuantPlan:
    """The plan with each group in the format that ``formats`` says. why: by layer."""
    for name in dict.fromkeys(formats.values()):
        if name != FLOAT and name not in table.plans:
            raise QCompileError(f"the table has no plan in {name} to take from", remedy="analyze the model again")
    chosen = {
        layer: LayerPlan(formats[group.name], (why or {}).get(layer, ""))
        for group in table.groups
        for layer in group.layers
    }
    return combine(table.plans, chosen, table.reads, table.residuals, table.passive)


def chosen_objective(objective: str | None, budgets: Budgets) -> str:
    if objective is None:
        return "latency" if list(budgets.limits) == ["loss"] else "accuracy"
    if objective not in OBJECTIVES:
        raise QCompileError(f"unknown objective '{objective}'", remedy=nearest(objective, OBJECTIVES))
    return objective


def explained(
    table: SensitivityTable,
    formats: Mapping[str, str],
    sums: Totals,
    objective: str,
    budgets: Budgets,
    gap: float | None,
    method: str,
) -> Assignment:
    why = reasons(table, formats, saved_quantity(objective, budgets), budgets.loss)
    return Assignment(formats, sums, objective, budgets, gap, method, why)


def saved_quantity(objective: str, budgets: Budgets) -> str:
    """What lower formats are there for: "seconds", or "bytes" where only the size is asked about."""
    if objective == "accuracy":
        return "bytes" if budgets.bytes is not None and budgets.seconds is None else "seconds"
    return OBJECTIVES[objective]


def unreachable(program: Program, budgets: Budgets, gap: float, time_limit: float) -> QCompileError:
    """The error for budgets that nothing keeps: each with the best that is reachable alone, or beside the others."""
    table, limits = program.table, budgets.limits
    alone, together = [], []
    for name, limit in limits.items():
        best = getattr(program.solve(name, {}, gap, time_limit).totals, name)
        if best > limit:
            alone.append((name, limit, best))
        else:
            found = program.solve(name, {n: x for n, x in limits.items() if n != name}, gap, time_limit)
            if found is not None:
                together.append((name, limit, getattr(found.totals, name)))
    described = [
        f"{NAMES[name]} of at most {amount(table, name, limit)} (best reachable: {amount(table, name, best, up=True)})"
        for name, limit, best in alone or together
    ]
    if alone:
        return QCompileError(f"no assignment has {' and '.join(described)}", remedy="raise the budget")
    reason = "no assignment keeps all budgets at once; with the others kept, " + " or ".join(described)
    return QCompileError(reason, remedy="raise one of them")
