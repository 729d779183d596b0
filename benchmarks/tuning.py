"""What tuning costs and what it gives: ``qcompile tune`` and ``build`` as a user types them, in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.builds import Builds
from benchmarks.cost import CLI, calibration_file
from benchmarks.models import BenchModel
from qcompile.artifact import open_artifact
from qcompile.bench import Contender, measure
from qcompile.report.units import microseconds


@dataclass(frozen=True)
class Wish:
    """seconds: budget of the session from an empty log. best_log: the best known; None: that log, searched again."""

    seconds: float
    best_log: Path | None = None


def tuning(model: BenchModel, builds: Builds, wish: Wish, seconds: float) -> dict[str, Any]:
    """A session from an empty log; builds without a log, with its log and with the best one, timed in turns."""
    folder = builds.folder / f"{model.name}-tuning"
    folder.mkdir()
    log, best = folder / "tuned.db", folder / "best.db"
    builds.tell(f"{model.name}: tuning for at most {wish.seconds:.0f} s")
    session, session_seconds = _tune(model, log, "--time-budget", f"{wish.seconds}s")
    _qcompile("log", "merge", str(wish.best_log or log), "-o", str(best))
    if wish.best_log is None:
        builds.tell(f"{model.name}: searching again, until nothing pays")
        _tune(model, best, "--again")
    again, again_seconds = _tune(model, best)

    data = calibration_file(model, folder)
    logs = {"untuned": "none", "tuned": str(log), "best": str(best)}
    built = {}
    for name, records in logs.items():
        builds.tell(f"{model.name}: building, {name}")
        arguments = ["--calib-data", str(data), "--tuning-records", records, "-o", str(folder / name)]
        built[name] = _qcompile("build", str(model.onnx), *arguments)[1]
    contenders = {name: Contender("qcompile", "int8", folder / name, feed=model.feed) for name in logs}
    builds.tell(f"{model.name}: measuring")
    measured = measure(list(contenders.values()), seconds)
    return {
        "model": model.name,
        "budget_seconds": wish.seconds,
        "tune_seconds": session_seconds,
        "trials": session["trials"] - sum(task["failed"] for task in session["tasks"]),
        "failed": sum(task["failed"] for task in session["tasks"]),
        "search_seconds": session["seconds"],
        "stopped": session["stopped"],
        "trials_with_full_log": again["trials"],
        "tune_seconds_with_full_log": again_seconds,
        "build_seconds": built,
        "schedules": {name: _sources(folder / name) for name in logs},
        "median_us": {name: 1e6 * measured[c].median for name, c in contenders.items()},
        "min_us": {name: 1e6 * measured[c].minimum for name, c in contenders.items()},
    }


SESSION_HEADERS = ["model", "seconds", "trials", "a minute", "ended by", "full log: trials", "build s", "its layers"]


def session_row(result: dict[str, Any]) -> list[str]:
    sources = result["schedules"]["best"]
    return [
        result["model"],
        f"{result['tune_seconds']:.0f}",
        str(result["trials"]) + (f" + {result['failed']} failed" if result["failed"] else ""),
        f"{60 * result['trials'] / result['search_seconds']:.0f}",
        result["stopped"],
        str(result["trials_with_full_log"]),
        f"{result['build_seconds']['best']:.1f}",
        ", ".join(f"{count} {source}" for source, count in sources.items()),
    ]


LATENCY_HEADERS = ["model", "untuned", "tuned", "best", "tuned / untuned", "tuned / best"]


def latency_row(result: dict[str, Any]) -> list[str]:
    """Ratios of minima: see ``benchmarks.markdown``."""
    median, fastest = result["median_us"], result["min_us"]
    return [
        result["model"],
        *(f"{microseconds(median[name])} / {microseconds(fastest[name])}" for name in ("untuned", "tuned", "best")),
        *(f"{fastest['tuned'] / fastest[name]:.3f}" for name in ("untuned", "best")),
    ]


def _tune(model: BenchModel, log: Path, *options: str) -> tuple[dict[str, Any], float]:
    """What a session says, and how long its process took."""
    text, seconds = _qcompile("tune", str(model.onnx), "--tuning-records", str(log), *options, "--json")
    return json.loads(text), seconds


def _qcompile(*arguments: str) -> tuple[str, float]:
    """Standard output and seconds of a command that must succeed."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CLI, *arguments], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return done.stdout, seconds


def _sources(artifact: Path) -> dict[str, int]:
    """How many schedules are tuned, transferred or default."""
    return dict(Counter(schedule.source for schedule in open_artifact(artifact, verify=False).manifest.schedules))
