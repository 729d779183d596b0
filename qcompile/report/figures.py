"""Pictures of matplotlib as SVG text that takes the page's colour of text, light or dark."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, ParamSpec

P = ParamSpec("P")

INK = "#010203"  # stands for the page's colour of text while matplotlib draws


def picture(draw: Callable[P, Any]) -> Callable[P, str]:
    """Makes of a function that draws a figure one that returns it as SVG.

    Equal pictures are equal text; words stay words.
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> str:
        import matplotlib

        keys = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
        style: dict[Any, Any] = {"svg.hashsalt": "qcompile", "svg.fonttype": "none", **dict.fromkeys(keys, INK)}
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        buffer = io.StringIO()
        with matplotlib.rc_context(style):
            draw(*args, **options).savefig(buffer, format="svg", metadata=nothing, transparent=True)
        text = buffer.getvalue().replace(INK, "currentColor").replace(' target="_blank"', "")
        return re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])  # several on a page: no id twice

    return drawn


def titled(svg: str, titles: Sequence[str]) -> str:
    """With titles, which browsers show, at the links to #p0, #p1, ..."""
    for i, title in enumerate(titles):
        link = f'<a xlink:href="#p{i}">'
        svg = svg.replace(link, f"{link}<title>{escape(title)}</title>")
    return svg


def axes_of(width: float, height: float) -> Any:
    """Empty axes; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def loss_scale(axes: Any, which: str, losses: Sequence[float]) -> None:
    """Losses span decades, and fp32 has none: logarithmic, with zero at the end. which: "x" or "y"."""
    positive = [loss for loss in losses if loss > 0]
    if not positive or max(positive) <= 20 * min(positive):
        axes.locator_params(axis=which, nbins=6)
        axes.ticklabel_format(axis=which, scilimits=(-3, 4))
    elif min(losses) > 0:
        axes.set(**{f"{which}scale": "log"})
    else:
        getattr(axes, f"set_{which}scale")("symlog", linthresh=min(positive))
