"""Tables of sensitivities for terminals: the groups that hurt most first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from qcompile.report import units
from qcompile.report.assignment import number
from qcompile.report.tables import table

if TYPE_CHECKING:
    from qcompile.assign.table import Group, SensitivityTable

_UNITS = {
    "kl": "in nats",
    "mse": "of the signal",
    "sqnr": "noise to signal",
    "cosine": "1 - cosine",
    "top1": "of samples",
}


def metric_in_words(metric: str) -> str:
    """ "kl, in nats"; the name alone for a metric without a unit."""
    unit = _UNITS.get(metric, "")
    return f"{metric}, {unit}" if unit else metric


def summary(sensitivities: SensitivityTable) -> str:
    """What was measured, and what all groups in one format cost together."""
    lines = [f"metric     {metric_in_words(sensitivities.metric)}, on {sensitivities.sample_count} samples"]
    if sensitivities.baseline:
        lines.append(f"fp32       {sensitivities.baseline:.6g}")
    for name, row in sensitivities.uniform.items():
        if name != "fp32" and row.loss is not None:
            alone = sum(group.entries[name].alone for group in sensitivities.groups if name in group.entries)
            lines.append(f"{name:<10} {row.loss:.4g} with all groups in it; {alone:.4g} if losses just added up")
    return "\n".join(lines)


def sensitivity_table(sensitivities: SensitivityTable, most: int | None = None) -> Table:
    """A row for each group and format, worst first; the first ``most`` of them, all if None."""
    found = [(group, name) for group in sensitivities.groups for name in group.entries if name != "fp32"]
    found.sort(key=lambda row: -row[0].entries[row[1]].alone)
    rows = []
    for group, name in found[:most]:
        entry, base = group.entries[name], group.entries["fp32"]
        rows.append(
            [
                group.name,
                name,
                number(entry.alone),
                "" if entry.upto is None else number(entry.upto),
                f"{entry.scores['sqnr']:.1f}" if "sqnr" in entry.scores else "",
                f"{entry.scores['hawq']:.3g}" if "hawq" in entry.scores else "",
                _microseconds(entry.seconds, entry.measured),
                _microseconds(base.seconds, base.measured),
                units.size(entry.bytes),
                _layers(group),
            ]
        )
    numbers = ["alone", "up to here", "sqnr dB", "hawq", "us", "fp32 us", "weights"]
    return table(["group", "format", *numbers, "layers"], rows, right=numbers)


def _microseconds(seconds: float, measured: bool) -> str:
    return units.microseconds(1e6 * seconds) + ("" if measured else " ?")


def _layers(group: Group) -> str:
    return f"{len(group.layers)}: {group.why}" if len(group.layers) > 1 else ""
