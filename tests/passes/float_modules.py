"""Small float modules for the tests of passes: written by hand, run by TVM, compared before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from qcompile import graph
from qcompile.graph import MainBuilder

Write = Callable[..., Sequence[relax.Expr]]


def module(write: Write, **inputs: tuple[int, ...]) -> IRModule:
    """``main`` of float32 inputs (by name: shape): ``write(builder, *inputs)`` emits it and returns the outputs."""
    params = [relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in inputs.items()]
    builder = MainBuilder(params)
    return builder.module(write(builder, *params))


def values(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype("float32")


def const(array: np.ndarray | float) -> relax.Expr:
    return relax.const(np.asarray(array, dtype="float32"), "float32")


def weight(*shape: int, seed: int = 0) -> relax.Expr:
    return const(values(*shape, seed=seed))


def run(mod: IRModule, *arrays: np.ndarray) -> list[np.ndarray]:
    return run_all([mod], *arrays)[0]


def run_all(mods: Sequence[IRModule], *arrays: np.ndarray) -> list[list[np.ndarray]]:
    """The outputs of modules that consist of ``main``; compiled together, which is quicker."""
    mains = {f"main_{i}": mod["main"].with_attr("global_symbol", f"main_{i}") for i, mod in enumerate(mods)}
    machine = relax.VirtualMachine(relax.build(IRModule(mains), tvm.target.Target({"kind": "llvm"})), tvm.cpu())
    tensors = [tvm.runtime.tensor(a) for a in arrays]
    return [[result.numpy() for result in machine[name](*tensors)] for name in mains]


def inputs_of(mod: IRModule) -> list[np.ndarray]:
    """Random inputs; far from zero in the mean, so that borders show."""
    return [values(*map(int, p.ty.shape), seed=7 + i, low=-1, high=3) for i, p in enumerate(graph.read(mod).params)]


def operators(mod: IRModule) -> list[str]:
    """The operators of main, in order, without ``relax.`` and ``nn.``."""
    return [
        value.op.name.rpartition(".")[2] if isinstance(value, relax.Call) else type(value).__name__
        for _, value in graph.read(mod).bindings
    ]


def names(mod: IRModule) -> list[str]:
    """The names of the variables of main, in order."""
    return [var.name for var, _ in graph.read(mod).bindings]


def check_same_results(before: IRModule, after: IRModule) -> None:
    """``after`` is a valid main with the outputs of ``before``: shapes, names, and values to float rounding."""
    relax.analysis.well_formed(after)
    assert len(set(names(after))) == len(names(after))
    assert [o.name for o in graph.read(after).outputs] == [o.name for o in graph.read(before).outputs]
    for expected, actual in zip(*run_all([before, after], *inputs_of(before)), strict=True):
        assert actual.shape == expected.shape and actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5)


def check(apply: tvm.ir.transform.Pass, before: IRModule, after: IRModule) -> None:
    """``apply`` makes exactly ``after`` of ``before``, which means the same; a second time it changes nothing."""
    result = apply(before)
    tvm.ir.assert_structural_equal(result, after)
    assert names(result) == names(after)
    check_same_results(before, result)
    tvm.ir.assert_structural_equal(apply(result), result)


def check_unchanged(apply: tvm.ir.transform.Pass, mod: IRModule) -> None:
    assert apply(mod).same_as(mod)
