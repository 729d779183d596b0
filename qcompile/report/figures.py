"""Pictures of matplotlib as SVG text that takes the page's colour of text, light or dark."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
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
        style = {"svg.hashsalt": "qcompile", "svg.fonttype": "none", **dict.fromkeys(keys, INK)}
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        buffer = io.StringIO()
        with matplotlib.rc_context(style):
            draw(*args, **options).savefig(buffer, format="svg", metadata=nothing, transparent=True)
        text = buffer.getvalue().replace(INK, "currentColor")
        return re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])  # several on a page: no id twice

    return drawn


def axes_of(width: float, height: float) -> Any:
    """Empty axes; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def loss_scale(set_scale: Any, losses: Sequence[float]) -> None:
    """Losses span decades, and fp32 has none: logarithmic, with zero at the end. set_scale: ``axes.set_yscale``."""
    positive = [loss for loss in losses if loss > 0]
    if positive and max(positive) > 20 * min(positive):
        if min(losses) > 0:
            set_scale("log")
        else:
            set_scale("symlog", linthresh=min(positive))
