"""Plans and QDQ forms of small float modules, for the tests of folding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import GlobalVar, IRModule

from qcompile import graph, ops
from qcompile.assign.uniform import plan_uniform
from qcompile.calibrate.stats import TensorRecord, TensorStats
from qcompile.model import Layer, Model, TensorSpec
from qcompile.passes.base import op_name
from qcompile.passes.insert_qdq import insert_qdq
from qcompile.passes.integer_form import integer_form
from qcompile.plan import QuantPlan
from qcompile.reference.interpreter import run
from tests.passes.float_modules import inputs_of


def model_of(module: IRModule) -> Model:
    """A ``Model`` in which the tensor "y" comes from the node "node of y", of the operator's name as its type."""
    main = graph.read(module)
    specs = [TensorSpec(p.name, tuple(map(int, p.ty.shape)), str(p.ty.dtype)) for p in main.params]
    outputs = [
        TensorSpec(o.name, tuple(map(int, o.ty.shape)), str(o.ty.dtype))
        for o in main.outputs
        if isinstance(o, relax.Var)
    ]
    layers = {v.name: Layer(f"node of {v.name}", op_name(value)) for v, value in main.bindings}
    return Model(module, tuple(specs), tuple(outputs), layers)


def feeds_of(module: IRModule) -> dict[str, np.ndarray]:
    return dict(zip([p.name for p in graph.read(module).params], inputs_of(module), strict=True))


def stats_of(module: IRModule) -> TensorStats:
    """Statistics of one run on the test inputs."""
    tensors = run(module, feeds_of(module), capture=True)
    floats = {k: v for k, v in tensors.items() if isinstance(v, np.ndarray) and v.dtype == np.float32}
    return TensorStats({name: TensorRecord.of(v, histogram=False) for name, v in floats.items()}, samples=1)


def plan_of(module: IRModule, **options: Any) -> QuantPlan:
    return plan_uniform(model_of(module), stats_of(module), **options)


def qdq_of(module: IRModule, **options: Any) -> IRModule:
    return insert_qdq(plan_of(module, **options))(module)


def integer_of(module: IRModule, plan: QuantPlan | None = None, **options: Any) -> IRModule:
    nodes = model_of(module).layers
    for each in integer_form(plan or plan_of(module, **options), nodes):
        module = each(module)
        relax.analysis.well_formed(module)
    return module


def specs_of(module: IRModule) -> list[ops.Spec]:
    """The specifications of the composites that main calls, in order."""
    calls = [value for _, value in graph.read(module).bindings if isinstance(value, relax.Call)]
    return [ops.spec_of(module[call.op]) for call in calls if isinstance(call.op, GlobalVar)]


def kinds(module: IRModule) -> list[str]:
    """What main consists of: names of operators, of composites in capitals: ["quantize", "CONV2D"]."""
    result = []
    for _, value in graph.read(module).bindings:
        if not isinstance(value, relax.Call):
            result.append(type(value).__name__)
        elif isinstance(value.op, GlobalVar):
            result.append(ops.spec_of(module[value.op]).op.upper())
        else:
            result.append(op_name(value).removeprefix("nn."))
    return result


def assert_within_a_step(module: IRModule, plan: QuantPlan, tensors: Sequence[str]) -> None:
    """The integer form's codes of ``tensors`` are within one of the QDQ form's, and are not all the same."""
    feeds = feeds_of(module)
    expected = run(insert_qdq(plan)(module), feeds, capture=True)
    actual = run(integer_of(module, plan), feeds, capture=True)
    for name in tensors:
        codes, want = actual[name].astype(int), expected[f"{name}.q"].astype(int)
        assert actual[name].dtype == expected[f"{name}.q"].dtype
        assert np.abs(codes - want).max() <= 1
        assert np.unique(want).size > 2


def assert_bodies_agree(result: IRModule, values_of: Mapping[str, np.ndarray]) -> None:
    """Each composite's Relax body, run on the codes that it met, is within a step of its specification.

    values_of: every variable of ``result``, as the oracle has it.
    """
    for var, call in graph.read(result).bindings:
        if isinstance(call, relax.Call) and isinstance(call.op, GlobalVar):
            body = IRModule({"main": result[call.op].with_attr("global_symbol", "main")})
            args = [values_of[a.name] if isinstance(a, relax.Var) else a.value.numpy() for a in call.args]
            told = next(iter(run(body, {f"arg{i}": arg for i, arg in enumerate(args)}).values()))
            step = 1 if told.dtype == np.uint8 else 1e-4 * max(1, np.abs(told).max())
            assert np.abs(told.astype(np.float64) - values_of[var.name]).max() <= step, var.name
