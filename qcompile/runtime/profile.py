"""Where the time of a call goes: kernels, the way into the library and out of it, and what looking at the clock costs.

::

    call of main     |--|--------k0--------|-----k1-----|--|            ``call``
    call of profile  |--|o-------k0--------o|-----k1-----o|--|          o: the clock is read

Stamps stand directly before and after kernels, so nothing is lost between two of them: a gap would be in the call, not
in the kernels. Calls of both kinds take turns; of each, the fastest quarter counts, and its mean, so that parts add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.manifest import KernelCall, LayerInfo


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Time of one kernel of a run, in microseconds. macs: multiply-accumulates; format: "int8", "fp32", "" if none."""

    kernel: str
    layer: str
    microseconds: float
    macs: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """Microseconds of one call: ``sum of kernels + overhead - clock = call``.

    kernels: in the order of the run, each with one reading of the clock. overhead: from Python to the first kernel, and
    from the last one back. clock: what all the readings cost; a difference of two measurements, so noise may make it
    negative. call: of ``main``, which reads no clock, on arrays that are bound (``Runner.bind``).
    """

    kernels: tuple[KernelTime, ...]
    overhead: float
    clock: float
    call: float


def split(
    calls: Sequence[KernelCall], layers: Sequence[LayerInfo], plain: np.ndarray, stamped: np.ndarray, stamps: np.ndarray
) -> Profile:
    """The profile from measured calls, all in microseconds.

    plain, stamped: durations of calls of ``main`` and of ``profile``, float64 (runs,). stamps: times that the latter
    wrote, float64 (runs, kernels + 1).
    """
    fastest = _fastest_quarter(stamped)
    kernels = np.diff(stamps[fastest]).mean(0)
    whole = float(stamped[fastest].mean())
    call = float(plain[_fastest_quarter(plain)].mean())
    times = tuple(
        KernelTime(c.kernel, c.layer, float(t), *work_of(c, layers)) for c, t in zip(calls, kernels, strict=True)
    )
    return Profile(times, overhead=whole - float(kernels.sum()), clock=whole - call, call=call)


def _fastest_quarter(durations: np.ndarray) -> np.ndarray:
    return np.argsort(durations, kind="stable")[: max(1, len(durations) // 4)]


def work_of(call: KernelCall, layers: Sequence[LayerInfo]) -> tuple[int, str]:
    """MACs and format of a call; of a layer's calls, the one that is named for its operator does the work."""
    for layer in layers:
        if layer.macs and layer.name == call.layer and call.kernel.startswith(layer.kernel.split(" ")[0]):
            return layer.macs, layer.format
    return 0, ""
