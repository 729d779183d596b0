"""Instructions that ONNX Runtime's int8 of a model executes on ARM, counted under QEMU."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from benchmarks.arm.cpus import Cpu, root_of
from benchmarks.arm.loops import multiplies
from benchmarks.arm.root import PYTHON
from benchmarks.models import BenchModel
from qcompile.bench.peers import int8_model
from qcompile.errors import QCompileError
from qcompile.runtime.counting import counting, read_sections

CALLS = 3  # of each model: the least counts
GUEST = Path(__file__).with_name("guest.py")


@dataclass(frozen=True, slots=True)
class PeerCount:
    """Instructions of one call, less those of calling a model that does nothing.

    activations: "int8" (S8S8) or "uint8" (U8S8); weights are int8 by channel, the format is QDQ. products: the
    instructions that multiply, by mnemonic.
    """

    activations: str
    cpu: str
    instructions: int
    products: Mapping[str, int]


def best_count(model: BenchModel, samples: int, cpu: Cpu, root: Path, keep: Callable) -> PeerCount:
    """The better of S8S8 and U8S8. root: made by ``benchmarks.arm.root``. keep: see ``results.Results.keep``."""
    feeds = model.calibration[:samples]
    counts = []
    for activations in ("int8", "uint8"):
        file = int8_model("onnxruntime", model.onnx, feeds, activations)
        found = keep(f"{file.parent.name} on {cpu.qemu}", lambda file=file: _count(file, model, cpu, root))
        counts.append(PeerCount(activations, cpu.qemu, **found))
    return min(counts, key=lambda count: count.instructions)


def _count(file: Path, model: BenchModel, cpu: Cpu, root: Path) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(folder / "inputs.npz", **model.feed)
        onnx.save(_nothing(onnx.load(file)), folder / "nothing.onnx")
        python = {"PYTHONHOME": root / "usr", "PYTHONPATH": root / "site", "PYTHONHASHSEED": 0}
        environment = [word for name, value in python.items() for word in ("-E", f"{name}={value}")]
        log = folder / "counts.txt"
        qemu = ["qemu-aarch64", "-cpu", cpu.qemu, "-L", str(root_of(cpu, root, folder)), *environment]
        program = [root / PYTHON, GUEST, folder / "inputs.npz", CALLS, file, folder / "nothing.onnx"]
        command = counting([*qemu, *map(str, program)], log, sections=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise QCompileError(
                (done.stderr.strip().splitlines() or ["it fails"])[-1], node=f"ONNX Runtime on {cpu.qemu}"
            )
        sections = read_sections(log)
    assert len(sections) == 2 * CALLS, "the virtual counter is read in a call"
    work, nothing = (
        min((_by_mnemonic(s) for s in sections[first : first + CALLS]), key=Counter.total) for first in (0, CALLS)
    )
    products = {word: work[word] for word in sorted(multiplies(work) & set(work))}
    return {"instructions": work.total() - nothing.total(), "products": products}


def _by_mnemonic(section: list) -> Counter[str]:
    counts: Counter[str] = Counter()
    for instruction in section:
        counts[instruction.mnemonic] += instruction.times
    return counts


def _nothing(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of the same inputs that returns the first as it is: what is left is the way from Python and back."""
    given = {constant.name for constant in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in given]
    result = helper.make_tensor_value_info("y", inputs[0].type.tensor_type.elem_type, None)
    node = helper.make_node("Identity", [inputs[0].name], ["y"])
    graph = helper.make_graph([node], "nothing", inputs, [result])
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
