"""The README's tables from the figures that ``benchmarks.run --json FILE`` wrote: python -m benchmarks.markdown FILE"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import accuracy, latency, recipe, tuning


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """``words``: how many columns, from the left, are not numbers."""
    lines = [headers, ["---"] * words + ["--:"] * (len(headers) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latencies(results: list[dict[str, Any]]) -> str:
    """Minima, the fastest in bold, and their ratios: medians of a shared machine say more of the others' work."""
    rows = []
    for result in results:
        times = result["min_us"]
        fastest = min(times.values())
        known = [times.get(column) for column in latency.COLUMNS]
        shown = ["-" if t is None else f"**{t:.0f}**" if t == fastest else f"{t:.0f}" for t in known]
        int8 = times["qcompile int8"] / min(times[peer] for peer in latency.PEERS if peer in times)
        fp32 = times["qcompile fp32"] / times["onnxruntime fp32"]
        rows.append([result["model"], *shown, f"{int8:.2f}", f"{fp32:.2f}"])
    return table(latency.HEADERS, rows)


def shares(results: list[dict[str, Any]]) -> str:
    """Of the int8 peak."""
    return table(latency.PEAK_HEADERS, [latency.peak_row(result) for result in results])


def sessions(results: list[dict[str, Any]]) -> str:
    return table(tuning.SESSION_HEADERS, [tuning.session_row(result) for result in results])


def gains(results: list[dict[str, Any]]) -> str:
    """Of tuning."""
    return table(tuning.LATENCY_HEADERS, [tuning.latency_row(result) for result in results])


def accuracies(results: list[dict[str, Any]]) -> str:
    return table(accuracy.HEADERS, [accuracy.row(result) for result in results], words=2)


def recipes(results: list[dict[str, Any]]) -> str:
    return table(recipe.HEADERS, [recipe.row(result) for result in results], words=2)


def distances(results: list[dict[str, Any]]) -> str:
    return table(recipe.DISTANCE_HEADERS, [recipe.distance_row(result) for result in results])


def main() -> None:
    figures = json.loads(Path(sys.argv[1]).read_text())
    sections: list[tuple[str, Callable[[list[dict[str, Any]]], str]]] = [
        ("latency", latencies),
        ("latency", shares),
        ("threads", latencies),
        ("accuracy", accuracies),
        ("recipe", recipes),
        ("recipe", distances),
        ("tuning", sessions),
        ("tuning", gains),
    ]
    print("\n\n".join(make(figures[name]) for name, make in sections if name in figures))


if __name__ == "__main__":
    main()
