"""From lowered kernels to machine code: the last step of a build, and a way to run a module in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm.ir import IRModule

from qcompile import graph
from qcompile.passes.emit_entry import Entry, emit_entry
from qcompile.passes.pipeline import lowering_passes, run_passes
from qcompile.targets.target import Target

# StorageRewrite lets the accumulators of two register tiles share one buffer, which LLVM then keeps in memory.
_CONFIG = {"tirx.disable_storage_rewrite": True}
# Of TVM's pipeline, what leaves code for a CPU as it is, and takes a tenth of the time.
_NEEDLESS = (
    *("s_tir.LowerCrossThreadReduction", "s_tir.LiftThreadBinding", "s_tir.ManifestSharedMemoryLocalStage"),
    *("s_tir.LowerAutoCopy", "s_tir.UnifyThreadBinding", "s_tir.InjectPermutedLayout", "s_tir.InjectSoftwarePipeline"),
    *("s_tir.TransformMmaBufferLayout", "s_tir.InjectVirtualThread", "s_tir.InjectDoubleBuffer", "s_tir.ThreadSync"),
    *("s_tir.VerifyVTCMLimit", "s_tir.LowerVtcmAlloc", "s_tir.InferFragment", "s_tir.LowerThreadAllreduce"),
    *("s_tir.MergeSharedMemoryAllocations", "tirx.FP8ComputeLegalize"),
)
_THOROUGH = ("s_tir.HoistIfThenElse", "tirx.CommonSubexprElim", "tirx.NarrowDataType")  # LLVM does as well


def compile_entry(entry: Entry, target: Target) -> Any:
    """The TVM executable of an entry function and its kernels."""
    return compile_module(entry.module, target)


def compile_module(module: IRModule, target: Target, quick: bool = False) -> Any:
    """The TVM executable of TIR functions. quick: with fewer passes, which leaves kernels in vectors as fast."""
    machine = target.tvm_target()
    if quick:
        machine = tvm.target.Target({**machine.export(), "opt-level": 1})
    with tvm.transform.PassContext(config=_CONFIG, disabled_pass=[*_NEEDLESS, *(_THOROUGH if quick else ())]):
        return tvm.compile(module, machine)


def runnable(module: IRModule, target: Target) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """``feeds by parameter name -> results by variable name`` of an integer (or float) form, compiled here and now.

    Schedules are the default ones: what is calibrated or compared must not depend on a tuning log. Results are
    overwritten by the next call.
    """
    main = graph.read(module)
    entry = emit_entry(run_passes(module, lowering_passes(target)))
    run = compile_entry(entry, target)[graph.MAIN]
    names = [getattr(output, "name", f"output{i}") for i, output in enumerate(main.outputs)]
    results = [
        tvm.runtime.empty(tuple(int(e) for e in output.ty.shape), str(output.ty.dtype)) for output in main.outputs
    ]
    weights = tvm.runtime.tensor(entry.weights)
    workspace = tvm.runtime.tensor(np.full(entry.workspace, 255, np.uint8))  # NaN, so that reading too early shows
    order = [param.name for param in main.params]

    def call(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        run(*(tvm.runtime.tensor(feeds[name]) for name in order), *results, weights, workspace)
        return {name: result.numpy() for name, result in zip(names, results, strict=True)}

    return call
