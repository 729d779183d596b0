"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def size(count: int) -> str:
    """512 -> "512 B", 1536 -> "1.5 KB", 3 << 20 -> "3.0 MB"."""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def count(value: int) -> str:
    """1234567 -> "1.23M"; "" for 0."""
    if value < 1000:
        return str(value) if value else ""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return str(value)


def shape(dims: Sequence[int]) -> str:
    """(1, 3, 224, 224) -> "1x3x224x224"; "scalar" for ()."""
    return "x".join(map(str, dims)) or "scalar"


def microseconds(value: float) -> str:
    """12.345 -> "12.3", 12345.6 -> "12346"."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
