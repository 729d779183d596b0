"""Plans and layers with int8 weights and float activations."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile import ops
from qcompile.assign.uniform import plan_uniform
from qcompile.compile import runnable
from qcompile.errors import QCompileError
from qcompile.plan import LayerPlan, QuantPlan
from qcompile.reference.interpreter import run
from qcompile.targets.select import select_target
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import assert_bodies_agree, feeds_of, integer_of, kinds, model_of, specs_of

op = relax.op


def network():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        f = b.emit(op.reshape(c, (1, 64)), "f")
        y = b.emit(op.add(b.emit(op.matmul(f, weight(64, 24)), "m"), weight(24)), "y")
        return [b.emit(op.matmul(y, weight(24, 3)), "z")]

    return module(write, x=(1, 4, 4, 4))


def planned(mod, **options):
    return plan_uniform(model_of(mod), None, "w8", **options)


def test_products_with_constants_have_codes():
    plan = planned(network(), exclude=["z"])
    assert {name: (layer.format, layer.why) for name, layer in plan.layers.items()} == {
        "c": ("fp32", "w8 is for matrix products with a constant, not conv"),
        "y": ("w8", ""),
        "z": ("fp32", "excluded as z"),
    }
    assert list(plan.tensors) == ["y.weight"] and plan.tensors["y.weight"].dtype == "int8"
    assert QuantPlan.from_json(plan.to_json()) == plan


def test_a_layer_is_one_composite_near_the_float_one():
    mod = network()
    result = integer_of(mod, planned(mod))
    assert kinds(result) == ["CONV2D", "reshape", "DENSE", "DENSE"]
    dense = [spec for spec in specs_of(result) if isinstance(spec, ops.Dense)]
    assert [(spec.x, spec.coded_weight, spec.weights) for spec in dense] == [(None, True, "int8")] * 2
    feeds = feeds_of(mod)
    want, got = (run(m, feeds, capture=True) for m in (mod, result))
    assert 0 < np.linalg.norm(got["z"] - want["z"]) < 0.02 * np.linalg.norm(want["z"])
    assert_bodies_agree(result, got)
    compiled = next(iter(runnable(result, select_target("x86-avx2"))(feeds).values()))
    np.testing.assert_allclose(compiled, got["z"], rtol=1e-4, atol=1e-4)


def test_other_layers_cannot_have_the_format():
    mod = network()
    plan = planned(mod)
    wrong = QuantPlan(plan.tensors, {**plan.layers, "c": LayerPlan("w8")})
    with pytest.raises(QCompileError, match="c: w8 is a format for matrix products with a constant, not conv"):
        integer_of(mod, wrong)
