"""Pictures of the front as SVG text: loss against latency and against size, and which layers have which format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcompile.assign.pareto import Point
from qcompile.assign.table import SensitivityTable, Uniform
from qcompile.assign.totals import Totals
from qcompile.report.colors import FORMATS
from qcompile.report.figures import INK, axes_of, loss_scale, picture
from qcompile.report.pareto import Rivals

_MARKS = "sDv^<>ph"


@picture
def loss_against_latency(
    points: Sequence[Point], table: SensitivityTable, rivals: Rivals | None = None, chosen: Totals | None = None
) -> Any:
    """rivals: methods to compare with. chosen: a plan to mark.

    Uniform formats stand where the sums have them, and, where the table has that, where they were measured.
    """
    return _scatter(points, table, rivals or {}, chosen, _LATENCY, _SIZE)


@picture
def loss_against_size(
    points: Sequence[Point], table: SensitivityTable, rivals: Rivals | None = None, chosen: Totals | None = None
) -> Any:
    """The same points as ``loss_against_latency``."""
    return _scatter(points, table, rivals or {}, chosen, _SIZE, _LATENCY)


_Axis = tuple[str, str, float]  # title, field of ``Totals`` and ``Uniform``, units of the field in one of the title
_LATENCY: _Axis = ("latency, us", "seconds", 1e-6)
_SIZE: _Axis = ("size, KB", "bytes", 1024.0)


def _along(axis: _Axis, sums: Totals | Uniform) -> float:
    return getattr(sums, axis[1]) / axis[2]


def _scatter(
    points: Sequence[Point],
    table: SensitivityTable,
    rivals: Rivals,
    chosen: Totals | None,
    x: _Axis,
    color: _Axis,
) -> Any:
    """Every point a link to its row (#p3); a line through those that are best in these two quantities."""
    axes = axes_of(6.6, 5.0)
    xs, losses = [_along(x, p.totals) for p in points], [p.totals.loss for p in points]
    shades = [_along(color, p.totals) for p in points]
    dots = axes.scatter(xs, losses, c=shades, cmap="viridis", edgecolors=INK, linewidths=0.5, s=36, zorder=3)
    dots.set_urls([f"#p{i}" for i in range(len(points))])
    axes.figure.colorbar(dots, ax=axes, label=color[0])
    best: list[tuple[float, float]] = []
    for spot in sorted(zip(xs, losses, strict=True)):
        if not best or spot[1] < best[-1][1]:
            best.append(spot)
    axes.step([a for a, _ in best], [b for _, b in best], where="post", color="#bbbbbb", zorder=1)
    for mark, (name, reached) in zip("+1", rivals.items(), strict=False):
        spots = [(_along(x, sums), sums.loss) for sums in reached if sums is not None]
        axes.scatter([a for a, _ in spots], [b for _, b in spots], marker=mark, color=FORMATS[5], zorder=2, label=name)
        losses += [loss for _, loss in spots]
    if chosen is not None:
        star = {"marker": "*", "s": 220, "color": FORMATS[5], "edgecolors": INK, "zorder": 5, "label": "this plan"}
        axes.scatter([_along(x, chosen)], [chosen.loss], **star)
        losses.append(chosen.loss)
    for i, row in enumerate(table.formats):
        _mark_uniform(axes, row.name, _MARKS[i % len(_MARKS)], points, table, x)
    loss_scale(axes, "y", losses)
    axes.set_xlabel(x[0])
    axes.set_ylabel(f"loss, {table.metric}")
    axes.grid(alpha=0.3)
    axes.figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    return axes.figure


def _mark_uniform(axes: Any, name: str, mark: str, points: Sequence[Point], table: SensitivityTable, x: _Axis) -> None:
    """An outline where the sums have it, a reddish one where it was measured."""
    style = {"marker": mark, "s": 110, "zorder": 4, "facecolors": "none"}
    for point in points:
        if point.name == name:
            axes.scatter([_along(x, point.totals)], [point.totals.loss], edgecolors=INK, label=f"all {name}", **style)
    real = table.uniform.get(name)
    if real is not None and real.loss is not None and getattr(real, x[1]) is not None:
        axes.scatter([_along(x, real)], [real.loss], edgecolors=FORMATS[5], label=f"all {name}, measured", **style)


@picture
def formats_map(points: Sequence[Point], table: SensitivityTable) -> Any:
    """A row for each point, a column for each group, coloured by format."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    names = [row.name for row in table.formats]
    cells = [[names.index(point.formats[group.name]) for group in table.groups] for point in points]
    axes = axes_of(10, max(2.0, 0.17 * len(points) + 1.2))
    colors = [FORMATS[i % len(FORMATS)] for i in range(len(names))]
    axes.imshow(
        cells, aspect="auto", interpolation="nearest", cmap=ListedColormap(colors), vmin=-0.5, vmax=len(names) - 0.5
    )
    axes.set_yticks(range(len(points)), [f"{i} {p.name}".strip() for i, p in enumerate(points)], fontsize=7)
    axes.set_yticks([i + 0.5 for i in range(len(points))], minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", axis="y", color="white")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("groups of layers, in order of execution")
    axes.set_ylabel("points, fastest first")
    patches = [Patch(color=color, label=name) for color, name in zip(colors, names, strict=True)]
    axes.legend(handles=patches, ncols=len(names), loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
    return axes.figure
