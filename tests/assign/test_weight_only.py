"""Plans and layers that compute on floats, with weights in fewer bits."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile.assign.uniform import plan_uniform
from qcompile.compile import runnable
from qcompile.errors import QCompileError
from qcompile.passes.insert_qdq import insert_qdq
from qcompile.plan import LayerPlan, QuantPlan
from qcompile.reference.interpreter import run
from qcompile.targets.select import can_run, select_target
from qcompile.targets.x86 import ROWS
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


def planned(mod, precision="w8", **options):
    return plan_uniform(model_of(mod), None, precision, **options)


def test_products_with_constants_have_codes():
    plan = planned(network(), exclude=["z"])
    assert {name: (layer.format, layer.why) for name, layer in plan.layers.items()} == {
        "c": ("w8", ""),
        "y": ("w8", ""),
        "z": ("fp32", "excluded as z"),
    }
    assert {name: tensor.dtype for name, tensor in plan.tensors.items()} == {"c.weight": "int8", "y.weight": "int8"}
    assert QuantPlan.from_json(plan.to_json()) == plan


def test_a_layer_is_one_composite_near_the_float_one():
    mod = network()
    result = integer_of(mod, planned(mod))
    assert kinds(result) == ["CONV2D", "reshape", "DENSE", "DENSE"]
    assert [(spec.x, spec.weights) for spec in specs_of(result)] == [(None, "int8")] * 3
    feeds = feeds_of(mod)
    want, got = (run(m, feeds, capture=True) for m in (mod, result))
    assert 0 < np.linalg.norm(got["z"] - want["z"]) < 0.02 * np.linalg.norm(want["z"])
    assert_bodies_agree(result, got)
    compiled = next(iter(runnable(result, select_target("x86-avx2"))(feeds).values()))
    np.testing.assert_allclose(compiled, got["z"], rtol=1e-4, atol=1e-4)


def test_float16_weights():
    mod = network()
    result = integer_of(mod, planned(mod, precision="fp16"))
    assert [(spec.activations, spec.weights) for spec in specs_of(result)] == [("float32", "float16")] * 3
    feeds = feeds_of(mod)
    want, got = (run(m, feeds, capture=True) for m in (mod, result))
    assert 0 < np.linalg.norm(got["z"] - want["z"]) < 1e-3 * np.linalg.norm(want["z"])
    assert_bodies_agree(result, got)
    compiled = next(iter(runnable(result, select_target("x86-avx2"))(feeds).values()))
    np.testing.assert_allclose(compiled, got["z"], rtol=1e-4, atol=1e-4)


def test_weights_beyond_float16_stay_as_they_are():
    mod = module(lambda b, x: [b.emit(op.matmul(x, relax.const(np.full((4, 2), 7e4, np.float32))), "y")], x=(1, 4))
    why = "a weight is beyond 65504, the largest number of float16"
    assert planned(mod, precision="fp16").layers["y"] == LayerPlan("fp32", why)
    with pytest.raises(QCompileError, match=f"y: {why}"):
        integer_of(mod, QuantPlan(layers={"y": LayerPlan("fp16")}))


def test_bfloat16_layers():
    mod = network()
    plan = planned(mod, exclude=["z"], precision="bf16")
    assert {name: layer.format for name, layer in plan.layers.items()} == {"c": "bf16", "y": "bf16", "z": "fp32"}
    assert {name: tensor.dtype for name, tensor in plan.tensors.items()} == {
        "c.weight": "bfloat16",
        "y.weight": "bfloat16",
    }
    assert QuantPlan.from_json(plan.to_json()) == plan


def test_bfloat16_layers_round_what_they_read():
    """The QDQ form says the same as the composites, and as the compiled kernels, of either kind of target."""
    mod = network()
    plan = planned(mod, precision="bf16")
    result = integer_of(mod, plan)
    assert kinds(result) == ["CONV2D", "reshape", "DENSE", "DENSE"]
    assert {(spec.x, spec.weights, spec.activations) for spec in specs_of(result)} == {(None, "bfloat16", "bfloat16")}
    feeds = feeds_of(mod)
    want, qdq, got = (run(m, feeds, capture=True) for m in (mod, insert_qdq(plan)(mod), result))
    assert 0 < np.linalg.norm(got["z"] - want["z"]) < 0.01 * np.linalg.norm(want["z"])
    np.testing.assert_allclose(got["z"], qdq["z"], rtol=1e-4, atol=1e-4)
    assert_bodies_agree(result, got)
    rows = [row for row in (ROWS[0].extended("avx512_bf16"), ROWS[-1]) if can_run(row)]
    for row in rows:
        compiled = next(iter(runnable(result, row)(feeds).values()))
        np.testing.assert_allclose(compiled, got["z"], rtol=1e-2, atol=1e-2)


def test_other_layers_cannot_be_bfloat16():
    mod = module(lambda b, x: [b.emit(op.mean(x, [2, 3]), "m")], x=(1, 4, 4, 4))
    why = "bf16 is for convolutions and matrix products with a constant, not mean"
    assert planned(mod, precision="bf16").layers["m"] == LayerPlan("fp32", why)
    with pytest.raises(QCompileError, match=f"m: {why}"):
        integer_of(mod, QuantPlan(layers={"m": LayerPlan("bf16")}))
