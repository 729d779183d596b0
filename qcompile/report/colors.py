"""Colours that people with any colour vision tell apart, and what is legible on them."""

from __future__ import annotations

import math
from collections.abc import Iterable

FORMATS = ("#999999", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")  # Okabe and Ito's
# From light to dark in hue and lightness: Brewer's YlOrBr.
HEAT = ("#ffffe5", "#fff7bc", "#fee391", "#fec44f", "#fe9929", "#ec7014", "#cc4c02", "#993404", "#662506")


def on(color: str) -> str:
    """Black or white, whichever has more contrast (WCAG 2) on "#rrggbb"."""
    return "#000" if _luminance(color) > 0.179 else "#fff"


def _luminance(color: str) -> float:
    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(color[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class Heat:
    """Steps of ``HEAT`` for positive numbers, on a logarithmic scale from the least to the greatest of ``values``."""

    def __init__(self, values: Iterable[float], decades: float = 6.0):
        """decades: what lies further below the greatest has the first colour."""
        positive = [value for value in values if value > 0]
        self.top = math.log10(max(positive)) if positive else 0.0
        self.bottom = max(math.log10(min(positive)), self.top - decades) if positive else 0.0

    def step(self, value: float | None) -> int | None:
        """None for no number, and for what is not positive: it has no colour."""
        if value is None or value <= 0:
            return None
        if self.top == self.bottom:
            return len(HEAT) - 1
        share = (math.log10(value) - self.bottom) / (self.top - self.bottom)
        return min(len(HEAT) - 1, max(0, int(share * len(HEAT))))

    @property
    def starts(self) -> list[float]:
        """The least value of each step."""
        return [10 ** (self.bottom + (self.top - self.bottom) * i / len(HEAT)) for i in range(len(HEAT))]
