"""What a build costs: time and memory in a fresh process, size on disk; and how long starting takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.builds import Builds
from benchmarks.models import BenchModel
from qcompile.report import units

CLI = "from qcompile.cli import main; main()"
STARTS = 5  # the fastest of so many counts


def build_cost(model: BenchModel, folder: Path) -> dict[str, Any]:
    """``qcompile build`` from ONNX to int8 artifact, calibration included, in a process of its own."""
    data = calibration_file(model, folder)
    arguments = ["build", str(model.onnx), "--calib-data", str(data), "-o", str(folder / f"{model.name}-fresh")]
    seconds, peak = _process([sys.executable, "-c", CLI, *arguments])
    return {"model": model.name, "samples": len(model.calibration), "seconds": seconds, "peak_bytes": peak}


def calibration_file(model: BenchModel, folder: Path) -> Path:
    """The model's calibration data as ``--calib-data`` takes it."""
    file = folder / f"{model.name}-calib.npz"
    np.savez(file, **{name: np.concatenate([feed[name] for feed in model.calibration]) for name in model.feed})
    return file


def start_cost() -> dict[str, float]:
    """Seconds that ``import qcompile`` and ``qcompile --help`` take, each in a fresh process."""
    commands = {
        "python starting": [sys.executable, "-c", "pass"],
        "import qcompile": [sys.executable, "-c", "import qcompile"],
        "qcompile --help": [sys.executable, "-c", CLI, "--help"],
    }
    return {name: min(_process(command)[0] for _ in range(STARTS)) for name, command in commands.items()}


def size(model: BenchModel, builds: Builds) -> dict[str, Any]:
    """Bytes of an int8 artifact beside the ONNX file's."""
    artifact = builds.artifact(model, "int8")
    weights, code = artifact.manifest.weights.bytes, artifact.manifest.library.bytes
    onnx = model.onnx.stat().st_size
    return {"model": model.name, "onnx": onnx, "weights": weights, "code": code, "artifact": artifact.size}


def size_row(result: dict[str, Any]) -> list[str]:
    sizes = [units.size(result[key]) for key in ("onnx", "weights", "code", "artifact")]
    return [result["model"], *sizes, f"{result['weights'] / result['onnx']:.3f}"]


SIZE_HEADERS = ["model", "ONNX", "weights", "code", "artifact", "weights / ONNX"]


def _process(command: Sequence[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a command that must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - start, usage.ru_maxrss * 1024
