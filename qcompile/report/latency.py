"""Measured latencies as a table and as rows for machines. The first contender is ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from qcompile.bench.contenders import Contender
from qcompile.bench.interleave import Latency, ratios
from qcompile.report.tables import table
from qcompile.report.units import microseconds


def latency_table(latencies: Mapping[Contender, Latency]) -> Table:
    """Median, minimum and 99th percentile in microseconds; medians over the fastest contender's and over ours."""
    ratio = ratios(latencies)
    ours = next(iter(latencies.values())).median
    rows = [
        [
            c.engine,
            c.format,
            *(microseconds(seconds * 1e6) for seconds in (t.median, t.minimum, t.p99)),
            f"{ratio[c]:.2f}x",
            f"{t.median / ours:.2f}x",
        ]
        for c, t in latencies.items()
    ]
    numbers = ["median us", "min us", "p99 us", "of fastest", "of ours"]
    return table(["engine", "format", *numbers], rows, right=numbers)


def latency_rows(latencies: Mapping[Contender, Latency]) -> list[dict[str, Any]]:
    """The same numbers, one dict a contender."""
    ratio = ratios(latencies)
    return [
        {
            "engine": c.engine,
            "format": c.format,
            "threads": c.threads,
            "median_us": t.median * 1e6,
            "min_us": t.minimum * 1e6,
            "p99_us": t.p99 * 1e6,
            "calls": t.calls,
            "ratio_to_fastest": ratio[c],
        }
        for c, t in latencies.items()
    ]
