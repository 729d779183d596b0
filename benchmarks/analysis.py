"""What an analysis costs, beside as many float forward passes of ONNX Runtime, which take turns with it.

python -m benchmarks.analysis MODEL.onnx SAMPLES.npz      prints the figures as JSON: a process of its own has its own
peak of memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import qcompile as qc
from benchmarks.builds import Builds
from benchmarks.cost import calibration_file
from benchmarks.models import BenchModel, one_by_one
from qcompile.report import units

FORMATS = ("int8", "w4a8", "bf16")  # besides fp32
SHARE = 4  # of the passes of ONNX Runtime, one in so many is run


def analysis(model: BenchModel, builds: Builds) -> dict[str, Any]:
    """All groups in all formats, alone and together with all before them, on the calibration samples."""
    builds.tell(f"{model.name}: analyzing")
    data = calibration_file(model, builds.folder)
    command = [sys.executable, "-m", "benchmarks.analysis", str(model.onnx), str(data)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"model": model.name, **json.loads(done.stdout)}


def _measure(onnx: Path, feeds: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    from qcompile.analyze.analyze import analyze
    from qcompile.analyze.configurations import Wish
    from qcompile.bench import Contender
    from qcompile.simulate.simulate import simulate

    imported = qc.import_onnx(onnx)
    stats = qc.calibrate(imported, feeds)
    plans = {name: qc.plan_uniform(imported, stats, name) for name in FORMATS}
    peer = Contender("onnxruntime", "fp32", onnx, feed=feeds[0]).open()
    passes, in_peer = 0, np.zeros(2)

    def run_peer(samples: int) -> None:
        nonlocal passes, in_peer
        start = _clock()
        for _ in range(count // SHARE):
            peer()
        passes += count // SHARE
        in_peer += _clock() - start

    start = _clock()
    simulation = simulate(imported, plans, tuning_records="default")
    compiled = _clock() - start
    groups = _groups(imported, plans)
    count = 1 + len(Wish(groups, FORMATS).configurations(simulation))
    start = _clock()
    analyze(imported, plans, feeds, simulation=simulation, progress=run_peer)
    measured = _clock() - start - in_peer
    theirs = in_peer / passes * count * len(feeds)
    ratios = (compiled + measured) / theirs
    return {
        "groups": len(groups),
        "formats": 1 + len(plans),
        "configurations": count,
        "samples": len(feeds),
        "compile_seconds": compiled[0],
        "measure_seconds": measured[0],
        "onnxruntime_seconds": theirs[0],
        "ratio": ratios[0],
        "cpu_ratio": ratios[1],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _clock() -> np.ndarray:
    """Seconds on the wall and of this process's CPU time, which is fairer on a machine that others use as well."""
    return np.array([time.perf_counter(), time.process_time()])


def _groups(model: qc.Model, plans: dict[str, qc.QuantPlan]) -> dict[str, tuple[str, ...]]:
    from qcompile import graph
    from qcompile.assign.structure import Structure
    from qcompile.assign.ties import find_ties

    return {tie.name: tie.layers for tie in find_ties(Structure(graph.read(model.module)), plans)}


HEADERS = [
    *("model", "groups x formats", "configurations", "samples", "compiling", "measuring", "as many passes of ORT"),
    *("ratio", "of CPU time", "peak memory"),
]


def row(result: dict[str, Any]) -> list[str]:
    seconds = [f"{result[f'{what}_seconds']:.1f} s" for what in ("compile", "measure", "onnxruntime")]
    counts = [f"{result['groups']} x {result['formats']}", str(result["configurations"]), str(result["samples"])]
    ratios = [f"{result[ratio]:.2f}" for ratio in ("ratio", "cpu_ratio")]
    return [result["model"], *counts, *seconds, *ratios, units.size(result["peak_bytes"])]


if __name__ == "__main__":
    with np.load(sys.argv[2]) as arrays:
        print(json.dumps(_measure(Path(sys.argv[1]), one_by_one(dict(arrays)))))
