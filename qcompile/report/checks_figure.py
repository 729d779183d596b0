"""Losses as sums predict them against losses as they were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qcompile.report.colors import FORMATS
from qcompile.report.figures import INK, axes_of, loss_scale, picture

# kind -> what it is called, marker, area, colour
_KINDS = {
    "up to here": ("first groups, up to each", "o", 14, FORMATS[1]),
    "uniform": ("a uniform format", "s", 60, FORMATS[2]),
    "checked": ("a plan that was checked", "*", 130, FORMATS[5]),
}


@picture
def predicted_against_measured(checks: Sequence[Mapping[str, Any]], metric: str) -> Any:
    """A dot for each check, as ``report_values`` lists them; on the diagonal losses add up. At least one."""
    axes = axes_of(6.0, 4.8)
    ends = [check[key] for check in checks for key in ("predicted", "measured")]
    for kind, (label, marker, area, color) in _KINDS.items():
        chosen = [check for check in checks if check["kind"] == kind]
        if chosen:
            xs, ys = [[check[key] for check in chosen] for key in ("predicted", "measured")]
            style = {"marker": marker, "s": area, "color": color, "edgecolors": INK, "linewidths": 0.5}
            axes.scatter(xs, ys, label=label, zorder=3, **style)
            for check in chosen if kind != "up to here" else ():
                axes.annotate(
                    _plain(check["name"]), (check["predicted"], check["measured"]), (6, -10), textcoords="offset points"
                )
    loss_scale(axes.set_xscale, ends)
    loss_scale(axes.set_yscale, ends)
    low, high = min(ends), max(ends)
    axes.plot([low, high], [low, high], color=INK, linestyle="--", linewidth=1, zorder=1, label="as predicted")
    axes.set_xlabel(f"predicted loss, {_plain(metric)}")
    axes.set_ylabel(f"measured loss, {_plain(metric)}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return axes.figure


def _plain(text: str) -> str:
    """A dollar sign would begin a formula."""
    return text.replace("$", r"\$")
