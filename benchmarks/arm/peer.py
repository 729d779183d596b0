"""Instructions that ONNX Runtime's int8 of a model executes on ARM (Neoverse N1), counted under QEMU."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.models import BenchModel
from qcompile.bench.peers import int8_model
from qcompile.runtime.executable import counter

ENOUGH = 1_000_000_000  # MACs to be counted: starting Python takes some more instructions or less, each time
_PROGRAM = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = dict(numpy.load(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    session.run(None, feed)
"""


def onnxruntime_count(model: BenchModel, calibration: int, macs: int, root: Path) -> float:
    """Of one call of the better of int8 and uint8 activations. root: made by ``arm_root.sh``."""
    calls = max(2, ENOUGH // macs)
    feeds = model.calibration[:calibration]
    files = [int8_model("onnxruntime", model.onnx, feeds, activations) for activations in ("int8", "uint8")]
    return min(_count(file, model, root, calls) for file in files)


def _count(file: Path, model: BenchModel, root: Path, calls: int) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(folder / "x.npz", **model.feed)
        (folder / "program.py").write_text(_PROGRAM)
        return (_run(folder, file, root, calls + 2) - _run(folder, file, root, 2)) / calls


def _run(folder: Path, file: Path, root: Path, calls: int) -> int:
    log = folder / "counts.txt"
    python = {"PYTHONHOME": root / "usr", "PYTHONPATH": root / "site", "PYTHONHASHSEED": 0}
    environment = [word for name, value in python.items() for word in ("-E", f"{name}={value}")]
    plugin = ["-plugin", str(counter()), "-d", "plugin", "-D", str(log)]
    command = ["qemu-aarch64", "-cpu", "neoverse-n1", "-L", str(root), *environment, *plugin]
    program = [str(root / "usr/bin/python3.11"), str(folder / "program.py"), str(file), str(folder / "x.npz")]
    subprocess.run([*command, *program, str(calls)], check=True, capture_output=True)
    return sum(int(line.split()[1]) for line in log.read_text().splitlines())
