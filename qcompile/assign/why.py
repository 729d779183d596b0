"""Why each layer has its format, in words: what another would cost and save, all else as it is."""

from __future__ import annotations

from collections.abc import Mapping

from qcompile.assign.table import FLOAT, Group, SensitivityTable
from qcompile.assign.totals import Parts, Totals
from qcompile.assign.words import amount, share


def reasons(
    table: SensitivityTable, formats: Mapping[str, str], saving: str, max_loss: float | None = None
) -> dict[str, str]:
    """Layer name -> reason.

    saving: the quantity that lower formats are there for, "seconds" or "bytes". max_loss: the budget, for shares of it.
    """
    told = _Told(table, formats, saving, max_loss)
    result = {}
    for group in table.groups:
        text = told.why(group)
        if len(group.layers) > 1:
            text += f" (one format for {len(group.layers)} layers: {group.why or 'tied'})"
        result.update(dict.fromkeys(group.layers, text))
    return result


class _Told:
    def __init__(self, table: SensitivityTable, formats: Mapping[str, str], saving: str, max_loss: float | None):
        self.table, self.formats, self.saving, self.max_loss = table, formats, saving, max_loss
        self.other = "bytes" if saving == "seconds" else "seconds"
        self.parts = Parts(table)

    def why(self, group: Group) -> str:
        chosen = self.formats[group.name]
        costs = {name: self.parts(self.formats, group.name, name) for name in group.entries}
        if len(costs) == 1:
            missing = "; ".join(f"{name}: {reason}" for name, reason in group.missing.items())
            return "no other format" + (f" ({missing})" if missing else "")
        clauses = [] if chosen == FLOAT else [self._against_float(costs, chosen)]
        better = [name for name in costs if self._saved(costs, chosen, name) > 0]
        if better:
            clauses.append(self._cheaper(costs, chosen, min(better, key=lambda n: self._price(costs, chosen, n))))
        elif chosen == FLOAT:
            clauses.append(self._no_faster(costs))
        return "; ".join(clauses)

    def _against_float(self, costs: Mapping[str, Totals], chosen: str) -> str:
        saved, loss = self._saved(costs, FLOAT, chosen), costs[chosen].loss - costs[FLOAT].loss
        whole = getattr(costs[FLOAT], self.saving)
        gain = f"saves {self._amount(self.saving, saved)} of {self._amount(self.saving, whole)}"
        if self.saving == "seconds" and costs[FLOAT].cast_seconds > costs[chosen].cast_seconds:
            gain += ", casts included,"
        if saved <= 0:
            also = getattr(costs[FLOAT], self.other) - getattr(costs[chosen], self.other)
            gain = f"saves {self._amount(self.other, also)}" if also > 0 else f"as good as {FLOAT}"
        return f"{gain} for {self._loss(loss)}" if loss > 0 else f"{gain} at no loss"

    def _cheaper(self, costs: Mapping[str, Totals], chosen: str, name: str) -> str:
        loss, gain = costs[name].loss - costs[chosen].loss, self._amount(self.saving, self._saved(costs, chosen, name))
        if loss > 0:
            return f"{name} would cost {self._loss(loss, ' more' * (chosen != FLOAT))}, for {gain}"
        more = getattr(costs[name], self.other) - getattr(costs[chosen], self.other)
        but = f"but takes {self._amount(self.other, more)} more" if more > 0 else "which is not needed"
        return f"{name} would save {gain}{' more' * (chosen != FLOAT)}, {but}"

    def _no_faster(self, costs: Mapping[str, Totals]) -> str:
        least = min((name for name in costs if name != FLOAT), key=lambda n: getattr(costs[n], self.saving))
        lost = -self._saved(costs, FLOAT, least)
        casts = costs[least].cast_seconds - costs[FLOAT].cast_seconds
        what = "slower" if self.saving == "seconds" else "larger"
        text = f"{least} would be {self._amount(self.saving, lost)} {what}" if lost > 0 else f"{least} saves nothing"
        return text + (f" (casts take {self._amount('seconds', casts)} more)" if casts > 0 and what == "slower" else "")

    def _saved(self, costs: Mapping[str, Totals], old: str, new: str) -> float:
        """By ``new`` over ``old``; differences that come of rounding count as none."""
        before, after = getattr(costs[old], self.saving), getattr(costs[new], self.saving)
        return before - after if abs(before - after) > 1e-9 * abs(before) else 0.0

    def _price(self, costs: Mapping[str, Totals], old: str, new: str) -> float:
        return (costs[new].loss - costs[old].loss) / self._saved(costs, old, new)

    def _amount(self, name: str, value: float) -> str:
        return amount(self.table, name, value)

    def _loss(self, value: float, more: str = "") -> str:
        part = f" ({share(value, self.max_loss)} the budget)" if self.max_loss else ""
        return self._amount("loss", value) + more + part
