"""Pictures of the front as SVG text: loss against latency and against size, and which layers have which format."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from qcompile.assign.pareto import Point
from qcompile.assign.table import SensitivityTable

COLORS = ("#999999", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")  # Okabe and Ito's
_MARKS = "sDv^<>ph"


def loss_against_latency(points: Sequence[Point], table: SensitivityTable) -> str:
    return _scatter(points, table, ("latency, us", lambda p: p.totals.seconds * 1e6), ("size, KB", _kilobytes))


def loss_against_size(points: Sequence[Point], table: SensitivityTable) -> str:
    return _scatter(points, table, ("size, KB", _kilobytes), ("latency, us", lambda p: p.totals.seconds * 1e6))


def _kilobytes(point: Point) -> float:
    return point.totals.bytes / 1024


def _scatter(
    points: Sequence[Point],
    table: SensitivityTable,
    x: tuple[str, Callable[[Point], float]],
    color: tuple[str, Callable[[Point], float]],
) -> str:
    """Every point a link to its row (#p3); a line through those that are best in these two quantities."""
    figure, axes = _figure(7.5, 4.5)
    xs, losses = [x[1](p) for p in points], [p.totals.loss for p in points]
    dots = axes.scatter(xs, losses, c=[color[1](p) for p in points], cmap="viridis", s=36, zorder=3)
    dots.set_urls([f"#p{i}" for i in range(len(points))])
    figure.colorbar(dots, ax=axes, label=color[0])
    best: list[tuple[float, float]] = []
    for spot in sorted(zip(xs, losses, strict=True)):
        if not best or spot[1] < best[-1][1]:
            best.append(spot)
    axes.step([a for a, _ in best], [b for _, b in best], where="post", color="#bbbbbb", zorder=1)
    for i, row in enumerate(table.formats):
        for point in points:
            if point.name == row.name:
                mark = {"marker": _MARKS[i % len(_MARKS)], "edgecolors": "black", "facecolors": "none"}
                axes.scatter([x[1](point)], [point.totals.loss], s=110, zorder=4, label=f"all {row.name}", **mark)
    _loss_scale(axes, losses)
    axes.set_xlabel(x[0])
    axes.set_ylabel(f"loss, {table.metric}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _svg(figure)


def _loss_scale(axes: Any, losses: Sequence[float]) -> None:
    """Losses span decades, and fp32 has none: logarithmic, with zero at the bottom."""
    positive = [loss for loss in losses if loss > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_yscale("symlog", linthresh=min(positive))


def formats_map(points: Sequence[Point], table: SensitivityTable) -> str:
    """A row for each point, a column for each group, coloured by format."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    names = [row.name for row in table.formats]
    cells = [[names.index(point.formats[group.name]) for group in table.groups] for point in points]
    figure, axes = _figure(10, max(2.0, 0.17 * len(points) + 1.2))
    colors = [COLORS[i % len(COLORS)] for i in range(len(names))]
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
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any) -> str:
    """Equal pictures are equal text; words stay words."""
    import matplotlib

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "qcompile", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
