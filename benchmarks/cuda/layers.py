"""Random layers and small networks, those of tests/properties, with the oracle's results: for GPUs without TVM."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from benchmarks.cuda.timing import ARCH, CODE
from qcompile import graph
from qcompile.passes.cuda_memory import Kernels
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.reference import interpreter
from qcompile.targets.cuda.compiler import find_compiler
from qcompile.targets.cuda.program import templates
from tests.properties import graphs
from tests.properties.graphs import module_of
from tests.properties.test_compiled import LAYERS
from tests.properties.test_cuda import CODES, examples


def write_layers(out: Path, arch: str, each: int = 20, networks: int = 100) -> int:
    """The code of all, ``layers.json`` with their launches, and ``arrays.npz``. Returns how many there are."""
    drawn = [module_of(case) for strategy in LAYERS.values() for case in examples(strategy, each)]
    drawn += examples(graphs.integer_graphs(dtypes=CODES), networks)
    kernels, rows, arrays = Kernels(), [], {}
    for number, network in enumerate(drawn):
        program, _ = lower_cuda(network.module, kernels)
        main = graph.read(network.module)
        expected = list(interpreter.run(network.module, network.feeds).values())
        inputs = [network.feeds[param.name] for param in main.params]
        launches = [
            [launch.kernel, launch.grid, launch.block, launch.shared, launch.arguments] for launch in program.launches
        ]
        rows.append({"workspace": program.workspace, "launches": launches})
        arrays[f"{number}/weights"] = program.weights
        arrays |= {f"{number}/input{i}": array for i, array in enumerate(inputs)}
        arrays |= {f"{number}/output{i}": array for i, array in enumerate(expected)}
    out.mkdir(parents=True, exist_ok=True)
    code = find_compiler().cubin(templates() + kernels.text, arch).code
    (out / ARCH).write_text(arch + "\n")
    (out / CODE).write_bytes(gzip.compress(code, mtime=0))
    (out / "layers.json").write_text(json.dumps(rows) + "\n")
    np.savez_compressed(out / "arrays.npz", **arrays)
    return len(rows)
