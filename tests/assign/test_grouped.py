"""Plans with int4 weights: which layers have them, and why others do not."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile.assign.uniform import plan_uniform
from qcompile.compile import runnable
from qcompile.errors import QCompileError
from qcompile.graph import MainBuilder
from qcompile.passes.insert_qdq import insert_qdq
from qcompile.plan import LayerPlan, QuantPlan
from qcompile.reference.interpreter import run
from qcompile.targets.select import select_target
from tests.passes.float_modules import const, module, weight
from tests.passes.quantized_modules import assert_bodies_agree, feeds_of, integer_of, model_of, plan_of, specs_of

op = relax.op


def told(plan):
    return {name: (layer.format, layer.why) for name, layer in plan.layers.items()}


def test_products_with_constants_have_them():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "c")
        f = b.emit(op.reshape(c, (1, 64)), "f")
        y = b.emit(op.matmul(f, weight(64, 24)), "y")
        return [b.emit(op.matmul(y, weight(24, 3)), "z")]

    plan = plan_of(module(write, x=(1, 4, 4, 4)), precision="w4a8")
    assert told(plan) == {
        "c": ("int8", "4 input channels are not a multiple of 16"),
        "y": ("w4a8", ""),
        "z": ("int8", "24 inputs are not a multiple of the group size 32"),
    }
    assert (plan.tensors["y.weight"].dtype, plan.tensors["y.weight"].group) == ("int4", 32)
    assert len(plan.tensors["y.weight"].group_scale) == 2 * 24
    assert plan.tensors["z.weight"].dtype == "int8" and plan.tensors["z.weight"].group == 0
    assert QuantPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("rows", "width", "expected"),
    [
        (700, 128, ("w4a8", "")),
        (700, 100, ("int8", "100 columns are not a multiple of the group size 32")),
        (90, 128, ("int8", "a table of 11520 elements; int4 pays from 65536")),
    ],
)
def test_large_tables_have_them(rows, width, expected):
    ids = relax.Var("ids", relax.TensorType((2, 3), "int64"))
    builder = MainBuilder([ids])
    y = builder.emit(op.take(weight(rows, width), ids, 0, mode="wrap"), "y")
    y = builder.emit(op.add(y, weight(3, width, seed=1)), "z")
    plan = plan_uniform(model_of(builder.module([y])), None, "w4a8")
    layer = next(iter(plan.layers.values()))
    assert (layer.format, layer.why) == expected


def test_the_bias_has_the_scale_of_the_sum():
    def write(b, x):
        return [b.emit(op.add(b.emit(op.matmul(x, weight(64, 8)), "m"), weight(8)), "y")]

    tensors = plan_of(module(write, x=(3, 64)), precision="w4a8").tensors
    expected = np.array(tensors["y.weight"].scale) * tensors["x"].scale[0]
    np.testing.assert_allclose(tensors["y.bias"].scale, expected, rtol=1e-6)


def test_sums_beyond_int32_fall_back_to_int8():
    def write(b, x):
        return [b.emit(op.matmul(x, const(np.ones((8192, 1)))), "y")]

    plan = plan_of(module(write, x=(1, 8192)), precision="w4a8")
    assert plan.layers["y"].format == "int8" and "beyond int32" in plan.layers["y"].why


def test_excluded_layers_stay_float():
    def write(b, x):
        return [b.emit(op.matmul(x, weight(64, 8)), "y")]

    plan = plan_of(module(write, x=(3, 64)), precision="w4a8", exclude=["y"])
    assert told(plan) == {"y": ("fp32", "excluded as y")}


def test_an_odd_size_of_groups_is_refused():
    def write(b, x):
        return [b.emit(op.matmul(x, weight(60, 8)), "y")]

    plan = plan_of(module(write, x=(3, 60)), precision="w4a8", group_size=20)
    assert told(plan) == {"y": ("int8", "groups of 20 weights are not a multiple of 8")}


def test_infinite_weights_name_the_layer():
    def write(b, x):
        return [b.emit(op.matmul(x, const(np.full((32, 2), np.inf))), "y")]

    with pytest.raises(QCompileError):
        plan_of(module(write, x=(3, 32)), precision="w4a8")


@pytest.mark.parametrize(
    ("inputs", "groups", "wish", "format", "group"),
    [
        (64, 1, 32, LayerPlan("w4a8"), 32),
        (48, 1, 32, LayerPlan("w4a8"), 16),  # what divides both
        (16, 1, 64, LayerPlan("w4a8"), 16),
        (16, 1, 8, LayerPlan("w4a8"), 8),
        (32, 2, 32, LayerPlan("w4a8"), 16),
        (24, 1, 32, LayerPlan("int8", "24 input channels are not a multiple of 16"), 0),
        (32, 32, 32, LayerPlan("int8", "1 input channels are not a multiple of 16"), 0),
    ],
)
def test_convolutions(inputs, groups, wish, format, group):
    def write(b, x):
        return [b.emit(op.nn.conv2d(x, weight(32, inputs // groups, 3, 3), padding=(1, 1), groups=groups), "y")]

    plan = plan_of(module(write, x=(1, inputs, 4, 4)), precision="w4a8", group_size=wish)
    assert (plan.layers["y"], plan.tensors["y.weight"].group) == (format, group)
    if group:
        assert len(plan.tensors["y.weight"].group_scale) == 32 * 9 * inputs // groups // group


def test_beside_float32():
    def write(b, x):
        c = b.emit(op.nn.relu(b.emit(op.nn.conv2d(x, weight(32, 16, 1, 1)), "c")), "r")
        return [b.emit(op.nn.conv2d_transpose(c, weight(32, 2, 1, 1)), "t")]

    mod = module(write, x=(1, 16, 4, 4))
    plan = plan_uniform(model_of(mod), None, "w4")
    why = "int4 weights are for convolutions, matrix products with a constant and tables, not conv_transpose"
    assert plan.layers == {"r": LayerPlan("w4"), "t": LayerPlan("fp32", why)}
    assert list(plan.tensors) == ["r.weight"] and plan.tensors["r.weight"].group == 16


@pytest.mark.parametrize("precision", ["w4", "w4a8"])
def test_the_composite_of_a_convolution(precision):
    """The oracle, the body in real numbers and the compiled kernel say the same; near the float layer."""

    def write(b, x):
        y = b.emit(op.nn.conv2d(x, weight(21, 32, 3, 3), padding=(1, 0, 0, 1)), "y")
        return [b.emit(op.add(y, weight(1, 21, 1, 1)), "z")]

    mod = module(write, x=(2, 32, 5, 4))
    plan = plan_of(mod, precision=precision)
    result = integer_of(mod, plan)
    (spec,) = specs_of(result)
    assert (spec.weights, spec.group, spec.activations) == ("int4", 32, "uint8" if precision == "w4a8" else "float32")
    feeds = feeds_of(mod)
    want, got = (run(m, feeds, capture=True) for m in (mod, result))
    assert 0 < np.linalg.norm(got["z"] - want["z"]) < 0.15 * np.linalg.norm(want["z"])
    qdq = run(insert_qdq(plan)(mod), feeds)["z"]
    np.testing.assert_allclose(got["z"], qdq, rtol=1e-3, atol=1e-3)
    assert_bodies_agree(result, got)
    compiled = next(iter(runnable(result, select_target("x86-avx2"))(feeds).values()))
    np.testing.assert_allclose(compiled, got["z"], rtol=1e-4, atol=1e-4)
