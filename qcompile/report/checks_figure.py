"""Losses as sums predict them against losses as they were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qcompile.report.colors import FORMATS
from qcompile.report.figures import INK, axes_of, loss_scale, picture

NAMED = 5  # as many checked plans have their names beside them; more would hide each other


@picture
def predicted_against_measured(checks: Sequence[Mapping[str, Any]], metric: str, formats: Sequence[str]) -> Any:
    """A dot for each check, as ``report_values`` lists them; on the diagonal losses add up. At least one check."""
    axes = axes_of(6.6, 4.8)
    for i, name in enumerate(formats):
        style = {"s": 16, "color": FORMATS[i % len(FORMATS)], "linewidths": 0.4}
        _dots(axes, [c for c in checks if c.get("format") == name], f"first groups in {name}", **style)
    uniform, checked = ([c for c in checks if c["kind"] == kind] for kind in ("uniform", "checked"))
    _dots(axes, uniform, "all groups in a format", marker="s", s=60, color="none", linewidths=1.5)
    _dots(axes, checked, "plans that were checked", marker="*", s=130, color=FORMATS[5], linewidths=0.5)
    for check in (*uniform, *(checked if len(checked) <= NAMED else ())):
        spot = (check["predicted"], check["measured"])
        axes.annotate(_plain(check["name"]), spot, (7, -11), textcoords="offset points")
    ends = [check[key] for check in checks for key in ("predicted", "measured")]
    loss_scale(axes, "x", ends)
    loss_scale(axes, "y", ends)
    low, high = min(ends), max(ends)
    axes.plot([low, high], [low, high], color=INK, linestyle="--", linewidth=1, zorder=1, label="as predicted")
    axes.set_xlabel(f"predicted loss, {_plain(metric)}")
    axes.set_ylabel(f"measured loss, {_plain(metric)}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return axes.figure


def _dots(axes: Any, checks: Sequence[Mapping[str, Any]], label: str, **style: Any) -> None:
    if checks:
        xs, ys = ([check[key] for check in checks] for key in ("predicted", "measured"))
        axes.scatter(xs, ys, label=label, edgecolors=INK, zorder=3, **style)


def _plain(text: str) -> str:
    """A dollar sign would begin a formula."""
    return text.replace("$", r"\$")
