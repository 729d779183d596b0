"""Modules and kernels of other machines, run here: compiled, linked, called by the C runner under an emulator."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tvm.ir import IRModule

from qcompile import graph
from qcompile.artifact import LIBRARY, WEIGHTS, write_library
from qcompile.compile import compile_entry, compile_module
from qcompile.errors import QCompileError
from qcompile.link import _linker
from qcompile.manifest import TensorInfo
from qcompile.passes.emit_entry import emit_entry
from qcompile.passes.pipeline import lowering_passes, run_passes
from qcompile.runtime import emulate
from qcompile.runtime.counting import unable
from qcompile.runtime.executable import DESCRIPTION, describe, runner_for
from qcompile.targets.target import Target


@cache
def missing(triple: str) -> str:
    """Why machines of this kind cannot be emulated here, "" if they can."""
    try:
        emulate.launcher(triple, ())
        _linker(triple)
        runner_for(triple)
    except QCompileError as error:
        return str(error)
    return ""


def skip_without(target: Target, counting: bool = False) -> None:
    """Skips the test, with the reason, where the target cannot be emulated, or its instructions not be counted."""
    reason = missing(target.triple)
    if counting and not reason:
        reason = unable(emulate.launcher(target.triple, ())[0])
    if reason:
        pytest.skip(reason)


def run_module(module: IRModule, feeds: Mapping[str, np.ndarray], target: Target) -> dict[str, np.ndarray]:
    """What an integer or float form computes on ``target``; results by variable name, as ``compile.runnable`` gives."""
    skip_without(target)
    main = graph.read(module)
    entry = emit_entry(run_passes(module, lowering_passes(target)))
    inputs = [TensorInfo(p.name, feeds[p.name].shape, str(feeds[p.name].dtype)) for p in main.params]
    outputs = [
        TensorInfo(getattr(o, "name", f"output{i}"), tuple(int(e) for e in o.ty.shape), str(o.ty.dtype))
        for i, o in enumerate(main.outputs)
    ]
    memory = [f"weights {entry.weights.size}", f"workspace {entry.workspace}"]
    arrays = [feeds[t.name] for t in inputs]
    results = _run(compile_entry(entry, target), arrays, inputs, outputs, target, memory, entry.weights)
    return {t.name: array for t, array in zip(outputs, results, strict=True)}


def run_kernel(function, arrays: Sequence[np.ndarray], out: tuple[int, str], target: Target) -> np.ndarray:
    """One kernel on flat arrays; ``out``: elements and dtype of its result."""
    return _call_kernel(emulate.call, function, arrays, out, target)[0]


def count_kernel(function, arrays: Sequence[np.ndarray], out: tuple[int, str], target: Target) -> dict[str, int]:
    """Instructions of one call of it, by mnemonic."""
    skip_without(target, counting=True)
    return _call_kernel(emulate.count, function, arrays, out, target)


def _call_kernel(how, function, arrays: Sequence[np.ndarray], out: tuple[int, str], target: Target):
    skip_without(target)
    module = compile_module(IRModule({"main": function.with_attr("global_symbol", "main")}), target)
    inputs = [TensorInfo(f"x{i}", array.shape, str(array.dtype)) for i, array in enumerate(arrays)]
    return _run(module, arrays, inputs, [TensorInfo("y", (out[0],), out[1])], target, how=how)


def _run(module, arrays, inputs, outputs, target: Target, memory=(), weights=None, how=emulate.call):
    with tempfile.TemporaryDirectory(prefix="qcompile-test-") as folder:
        place = Path(folder)
        write_library(module, place / LIBRARY, target.triple)
        (place / DESCRIPTION).write_text(describe(inputs, outputs, memory=memory))
        if weights is not None:
            weights.tofile(place / WEIGHTS)
        command = [*emulate.launcher(target.triple, target.features), str(runner_for(target.triple))]
        return how(command, place, arrays, outputs)
