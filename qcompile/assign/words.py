"""Losses, times and sizes as reasons and errors write them."""

from __future__ import annotations

import math

from qcompile.assign.table import SensitivityTable

NAMES = {"loss": "loss", "seconds": "latency", "bytes": "size"}
_METRICS = {"kl": "KL", "mse": "MSE"}


def amount(table: SensitivityTable, name: str, value: float, up: bool = False) -> str:
    """("seconds", 3.1e-5) -> "31 us"; ("bytes", 2048) -> "2.0 KB"; ("loss", 4e-4) -> "0.0004 KL".

    up: to more digits and rounded away from 0, so that what is allowed by this number is really allowed.
    """
    if name == "seconds":
        return _scaled(value, (("us", 1e-6), ("ms", 1e-3), ("s", 1.0)), up)
    if name == "bytes":
        return _scaled(value, (("B", 1.0), ("KB", 1024.0), ("MB", 1024.0**2), ("GB", 1024.0**3)), up)
    return f"{_digits(value, up)} {_METRICS.get(table.metric, table.metric)}"


def _scaled(value: float, units: tuple[tuple[str, float], ...], up: bool) -> str:
    unit, factor = units[0]
    for unit_, factor_ in units[1:]:
        if abs(value) >= factor_:
            unit, factor = unit_, factor_
    return f"{_digits(value / factor, up)} {unit}"


def _digits(value: float, up: bool) -> str:
    if not up or not value:
        return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 3)
    return f"{math.ceil(value / step) * step:.4g}"


def share(part: float, whole: float) -> str:
    """ "12 % of" or, beyond twice, "3.1 times"."""
    if part > 2 * whole:
        return f"{_digits(part / whole, False)} times"
    return f"{_digits(100 * part / whole, False)} % of"
