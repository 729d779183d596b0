"""Latency of one inference, ours and the peers', measured in turns, batch 1; and the share of the int8 peak in it."""

from __future__ import annotations

from typing import Any

from benchmarks.builds import Builds
from benchmarks.models import BenchModel
from qcompile.bench import Contender, Latency, Peak, measure
from qcompile.errors import QCompileError
from qcompile.report.units import count

PEERS = ("onnxruntime fp32", "onnxruntime int8", "openvino fp32", "openvino int8")
COLUMNS = ("qcompile int8", "qcompile fp32", *PEERS)


def latency(model: BenchModel, builds: Builds, seconds: float, threads: int) -> dict[str, Any]:
    """Microseconds by column, median and minimum, and our ratios to the fastest peer and to ONNX Runtime's fp32.

    A column is left out if its engine cannot run the model. Also what our int8 build reaches in its fastest call, in
    GOPS (a multiply-accumulate is two operations), and what a micro-kernel does that was measured in turns with it.
    """
    contenders = builds.contenders(model, threads)
    manifest = builds.artifact(model, "int8", threads).manifest
    peak = Peak(manifest.target, "int8", threads)
    contenders = {column: [c for c in found if _runs(c, builds)] for column, found in contenders.items()}
    builds.tell(f"{model.name}: measuring, {threads} thread(s)")
    everyone: list[Contender | Peak] = [peak, *(c for found in contenders.values() for c in found)]
    measured = measure(everyone, seconds)
    best: dict[str, Latency] = {
        column: min((measured[c] for c in found), key=lambda latency: latency.median)
        for column, found in contenders.items()
        if found
    }
    macs = sum(layer.macs for layer in manifest.layers)
    return {
        "model": model.name,
        "threads": threads,
        "macs": macs,
        "gops": 2e-9 * macs / best["qcompile int8"].minimum,
        "int8_peak_gops": peak.gops(measured[peak].minimum),
        "median_us": {column: 1e6 * found.median for column, found in best.items()},
        "min_us": {column: 1e6 * found.minimum for column, found in best.items()},
        "int8_over_fastest_peer": best["qcompile int8"].median / min(best[p].median for p in PEERS if p in best),
        "fp32_over_onnxruntime_fp32": best["qcompile fp32"].median / best["onnxruntime fp32"].median,
    }


def _runs(contender: Contender, builds: Builds) -> bool:
    """Whether an engine takes the model; a peer that does not is left out, with a note, and ours has to."""
    if contender.engine == "qcompile":
        return True
    try:
        contender.open()
    except QCompileError as error:
        builds.tell(f"left out: {error}")
        return False
    return True


def row(result: dict[str, Any]) -> list[str]:
    """A table's row: "median / min" for each column, then the ratios."""
    median, minimum = result["median_us"], result["min_us"]
    return [
        result["model"],
        *(f"{median[column]:.0f} / {minimum[column]:.0f}" if column in median else "-" for column in COLUMNS),
        f"{result['int8_over_fastest_peer']:.2f}",
        f"{result['fp32_over_onnxruntime_fp32']:.2f}",
    ]


HEADERS = ["model", *COLUMNS, "int8 / fastest peer", "fp32 / ORT fp32"]


def peak_row(result: dict[str, Any]) -> list[str]:
    reached, peak = result["gops"], result["int8_peak_gops"]
    fastest = f"{result['min_us']['qcompile int8']:.0f}"
    return [result["model"], count(result["macs"]), fastest, f"{reached:.0f}", f"{peak:.0f}", f"{reached / peak:.1%}"]


PEAK_HEADERS = ["model", "MACs", "min us", "GOPS", "int8 peak", "share of it"]
