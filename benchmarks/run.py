"""Measures everything, or a part, and prints tables.

make bench ARGS="--only latency,size --models kws_dscnn,resnet50 --json figures.json"
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

import qcompile as qc
from benchmarks import accuracy, analysis, cost, latency, mixed, recipe, tuning
from benchmarks.builds import Builds
from benchmarks.models import BenchModel, bench_folder, find
from benchmarks.tuning import Wish
from qcompile.report.tables import table
from qcompile.report.units import size

USUAL = ("latency", "threads", "accuracy", "size", "build")
SECTIONS = (*USUAL, "recipe", "tuning", "mixed", "analysis")  # minutes a model: only if asked for


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", type=_words, default=[], help="names, separated by commas; default: all (tuning: resnet50)"
    )
    parser.add_argument(
        "--only", type=_words, default=list(USUAL), help=f"of {', '.join(SECTIONS)}; default: {', '.join(USUAL)}"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of calls, each contender")
    parser.add_argument("--tuning-records", default="default", help="for our builds: as for qcompile build")
    parser.add_argument("--tuning-budget", type=float, default=300.0, help="seconds, of section tuning")
    parser.add_argument("--best-log", type=Path, help="of section tuning; default: the same log, searched again")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if unknown := [name for name in options.only if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    wanted = options.models or (["resnet50"] if options.only == ["tuning"] else [])
    models, notes = find(wanted, bench_folder())
    out = Console(width=None if sys.stdout.isatty() else 200)
    status = Console(stderr=True)
    out.print(f"{_cpu()}, {os.cpu_count()} CPUs visible, target {qc.select_target('native').name}", highlight=False)
    out.print(f"tuning records: {options.tuning_records}", highlight=False)
    for note in notes:
        out.print(f"note: {note}", highlight=False)
    with tempfile.TemporaryDirectory() as folder, status.status("") as spinner:
        builds = Builds(Path(folder), lambda line: spinner.update(line), options.tuning_records)
        figures = _Figures(models, builds, out, Wish(options.tuning_budget, options.best_log))
        for section in options.only:
            getattr(figures, section)(options.seconds)
            if options.json:
                options.json.write_text(json.dumps(figures.results, indent=1) + "\n")
    if figures.failed:
        sys.exit(1)


class _Figures:
    """One method a section; each prints its table and keeps its figures."""

    def __init__(self, models: list[BenchModel], builds: Builds, out: Console, wish: Wish):
        self.models, self.builds, self.out, self.wish = models, builds, out, wish
        self.results: dict[str, list[dict[str, Any]]] = {}
        self.failed = False

    def latency(self, seconds: float, threads: int = 1) -> None:
        rows = self._each(
            "threads" if threads > 1 else "latency", lambda m: latency.latency(m, self.builds, seconds, threads)
        )
        processes = "in turns in one process" if threads == 1 else "each in a process of its own, in turns"
        title = f"latency in microseconds, median / min, {threads} thread(s), {processes}"
        self._print(title, latency.HEADERS, map(latency.row, rows), text=1)
        title = f"share of the int8 peak, in GOPS, {threads} thread(s)"
        self._print(title, latency.PEAK_HEADERS, map(latency.peak_row, rows), text=1)

    def threads(self, seconds: float) -> None:
        self.latency(seconds, threads=2)

    def accuracy(self, seconds: float) -> None:
        rows = self._each("accuracy", lambda m: accuracy.accuracy(m, self.builds), evaluated=True)
        self._print("accuracy", accuracy.HEADERS, map(accuracy.row, rows), text=2)

    def recipe(self, seconds: float) -> None:
        rows = self._each("recipe", lambda m: recipe.recipe(m, self.builds), evaluated=True)
        self._print("what each step towards accurate int8 buys", recipe.HEADERS, map(recipe.row, rows), text=2)
        title = "relative squared distance to the float model's outputs"
        self._print(title, recipe.DISTANCE_HEADERS, map(recipe.distance_row, rows), text=1)

    def size(self, seconds: float) -> None:
        rows = self._each("size", lambda m: cost.size(m, self.builds))
        self._print("size of int8 artifacts", cost.SIZE_HEADERS, map(cost.size_row, rows), text=1)

    def build(self, seconds: float) -> None:
        rows = self._each("build", lambda m: cost.build_cost(m, self.builds.folder))
        shown = [[r["model"], str(r["samples"]), f"{r['seconds']:.1f} s", size(r["peak_bytes"])] for r in rows]
        self._print("qcompile build", ["model", "calibration samples", "time", "peak memory"], shown, text=1)
        starts = cost.start_cost()
        self.results["start"] = [starts]
        self._print("starting", ["command", "time"], [[n, f"{s:.2f} s"] for n, s in starts.items()], text=1)

    def tuning(self, seconds: float) -> None:
        rows = self._each("tuning", lambda m: tuning.tuning(m, self.builds, self.wish, seconds))
        title = f"tuning from an empty log, at most {self.wish.seconds:.0f} s"
        self._print(title, tuning.SESSION_HEADERS, map(tuning.session_row, rows), text=1)
        title = "latency in microseconds, median / min, by the log that the build used"
        self._print(title, tuning.LATENCY_HEADERS, map(tuning.latency_row, rows), text=1)

    def analysis(self, seconds: float) -> None:
        rows = self._each("analysis", lambda m: analysis.analysis(m, self.builds))
        self._print("analyzing, and passes of ONNX Runtime in turns", analysis.HEADERS, map(analysis.row, rows), text=1)

    def mixed(self, seconds: float) -> None:
        rows = self._each("mixed", lambda m: mixed.mixed(m, self.builds, seconds), evaluated=True)
        title = f"mixed precision, at most {mixed.MAX_DROP} worse than fp32, uniform formats, and simpler choices"
        self._print(title, mixed.HEADERS, mixed.table_rows(rows), text=2)

    def _each(
        self, section: str, run: Callable[[BenchModel], dict[str, Any]], evaluated: bool = False
    ) -> list[dict[str, Any]]:
        """The section's result for each model; a model that fails is said, and does not stop the others."""
        results = self.results.setdefault(section, [])
        for model in self.models:
            if evaluated and model.folder is None:
                continue
            try:
                results.append(run(model))
            except Exception as error:
                self.failed = True
                self.out.print(
                    f"{section}, {model.name}: {type(error).__name__}: {error}", highlight=False, markup=False
                )
        return results

    def _print(self, title: str, headers: list[str], rows: Any, text: int) -> None:
        """``text``: how many columns are words; numbers are aligned to the right."""
        self.out.print(table(headers, rows, right=headers[text:], title=f"\n{title}"), highlight=False)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
