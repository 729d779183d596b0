"""A built model made by hand, without the compiler's pipeline: ``y = x + weights``, through the workspace."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from tvm.ir import GlobalVar, IRModule
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.artifact import Artifact, write_artifact
from qcompile.manifest import KernelCall, LayerInfo, Manifest, TensorInfo
from qcompile.plan import QuantPlan

SHAPE = (1, 64)
WEIGHTS = np.arange(64, dtype=np.uint8)


def _function(name: str, parallel: bool, stamped: bool):
    with IRBuilder() as ib, T.prim_func(s_tir=True):
        T.func_name(name)
        x = T.arg("x", T.buffer(SHAPE, "float32"))
        y = T.arg("y", T.buffer(SHAPE, "float32"))
        weights = T.arg("weights", T.buffer((64,), "uint8"))
        workspace = T.arg("workspace", T.buffer((256,), "uint8"))
        stamps = T.arg("stamps", T.buffer((3,), "int64")) if stamped else None

        def stamp(i: int) -> None:
            if stamped:
                T.buffer_store(stamps, T.call_llvm_intrin("int64", "llvm.readcyclecounter"), [i])

        stamp(0)
        with T.serial(0, 64) as i:
            T.buffer_store(workspace, weights[i], [i])
        stamp(1)
        with (T.parallel if parallel else T.serial)(0, 64) as i:
            T.buffer_store(y, x[0, i] + T.cast(workspace[i], "float32"), [0, i])
        stamp(2)
    return ib.get()


@cache
def executable(threads: int = 1, profile: bool = True):
    import tvm
    from tvm.target import Target

    functions = {GlobalVar("main"): _function("main", threads > 1, False)}
    if profile:
        functions[GlobalVar("profile")] = _function("profile", threads > 1, True)
    target = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v3"})
    return tvm.compile(IRModule(functions), target)


def manifest(**changes) -> Manifest:
    fields = {
        "model": "add.onnx",
        "model_sha256": "0" * 64,
        "model_bytes": 1000,
        "target": "x86-avx2",
        "triple": "x86_64-linux-gnu",
        "features": ("avx2", "fma"),
        "threads": 1,
        "inputs": (TensorInfo("x", SHAPE, "float32"),),
        "outputs": (TensorInfo("y", SHAPE, "float32"),),
        "workspace_bytes": 256,
        "layers": (
            LayerInfo("conv1", "Conv", "int8", "conv_0", (SHAPE,), SHAPE, 4096, 0.5, 128),
            LayerInfo("add", "Add", "fp32", "add_0", (SHAPE, SHAPE), SHAPE, reason="no integer form of Add here"),
        ),
        "calls": (KernelCall("copy"), KernelCall("add_0", "add")),
    }
    return Manifest(**{**fields, **changes})


def build(out: Path, threads: int = 1, profile: bool = True, weights: np.ndarray = WEIGHTS, **changes) -> Artifact:
    plan = QuantPlan(method="minmax", integer_inputs=())
    return write_artifact(
        out,
        module=executable(threads, profile),
        weights=weights,
        manifest=manifest(threads=threads, **changes),
        plan=plan,
    )
