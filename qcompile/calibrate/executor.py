"""Runs a float model and shows every float tensor in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qcompile.model import Model

Executor = Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]  # input feeds -> float32 tensors by name


def default_executor(model: Model) -> Executor:
    """An executor on this machine's CPU that gives all float32 variables of ``main`` by their names."""
    import tvm
    from tvm import relax
    from tvm.runtime.vm import VirtualMachine

    from qcompile.graph import MAIN, MainBuilder, read, substitute

    graph = read(model.module)
    builder = MainBuilder(graph.params, model.module)
    copies: dict[relax.Var, relax.Expr] = {}
    for var, value in graph.bindings:
        copies[var] = builder.emit(substitute(value, copies), var.name)
    shown = {
        var.name: copy
        for var, copy in copies.items()
        if isinstance(copy.ty, relax.TensorType) and str(copy.ty.dtype) == "float32"
    }
    machine = VirtualMachine(relax.build(builder.module(shown.values()), target="llvm"), tvm.cpu())
    run, names, order = machine[MAIN], tuple(shown), [spec.name for spec in model.inputs]

    def execute(feed: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        results = run(*(tvm.runtime.tensor(feed[name]) for name in order))
        return {name: result.numpy() for name, result in zip(names, results, strict=True)}

    return execute
