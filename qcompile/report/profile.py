"""A profile as a table and as rows for machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from qcompile.report.tables import table
from qcompile.report.units import count, microseconds
from qcompile.runtime.profile import Profile

NUMBERS = ["us", "share", "MACs", "GOPS", "of peak"]


def profile_table(profile: Profile, peaks: Mapping[str, float]) -> Table:
    """One row a kernel, in the order of the run, then the rest of a call, then the call.

    peaks: GOPS of this machine by format; a kernel is held against that of its own format, the call against the highest
    of a format that it uses.
    """
    rows = [
        [k.layer, k.kernel, microseconds(k.microseconds), f"{k.microseconds / profile.call:.1%}", *work]
        for k in profile.kernels
        for work in [_work(k.macs, k.microseconds, peaks.get(k.format))]
    ]
    rest = [("call overhead", profile.overhead), ("less the clock's readings", -profile.clock)]
    rows += [["", name, _signed(value), f"{value / profile.call:.1%}", "", "", ""] for name, value in rest]
    highest = max((peaks[k.format] for k in profile.kernels if k.format in peaks), default=None)
    total = _work(sum(k.macs for k in profile.kernels), profile.call, highest)
    rows.append(["", "whole call", microseconds(profile.call), "100.0%", *total])
    return table(["layer", "kernel", *NUMBERS], rows, right=NUMBERS)


def profile_rows(profile: Profile, peaks: Mapping[str, float]) -> dict[str, Any]:
    """The same for machines: times in microseconds, rates in GOPS."""
    return {
        "call_us": profile.call,
        "overhead_us": profile.overhead,
        "clock_us": profile.clock,
        "peak_gops": dict(peaks),
        "kernels": [
            {
                "layer": k.layer,
                "kernel": k.kernel,
                "us": k.microseconds,
                "format": k.format,
                "macs": k.macs,
                "gops": gops(k.macs, k.microseconds),
            }
            for k in profile.kernels
        ],
    }


def gops(macs: int, microseconds: float) -> float:
    """Billions of operations a second; a multiply-accumulate is two."""
    return 2e-3 * macs / microseconds if microseconds > 0 else 0.0


def _work(macs: int, microseconds: float, peak: float | None) -> list[str]:
    if not macs:
        return ["", "", ""]
    reached = gops(macs, microseconds)
    return [count(macs), f"{reached:.0f}", f"{reached / peak:.1%}" if peak else ""]


def _signed(value: float) -> str:
    return f"-{microseconds(-value)}" if value < 0 else microseconds(value)
