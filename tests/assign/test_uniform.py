from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax

from qcompile.assign.uniform import plan_uniform
from qcompile.calibrate.scales import affine
from qcompile.calibrate.stats import TensorStats
from qcompile.errors import QCompileError
from qcompile.plan import QuantPlan
from tests.passes.float_modules import const, module, values, weight
from tests.passes.quantized_modules import model_of, plan_of, stats_of

op = relax.op
SHAPE = (1, 4, 6, 6)


def conv(b, x, name, channels=4, seed=0):
    return b.emit(op.nn.conv2d(x, weight(channels, int(x.ty.shape[1]), 1, 1, seed=seed), padding=(0, 0)), name)


def formats(plan):
    return {name: layer.format for name, layer in plan.layers.items()}


def two_layers(b, x):
    y = b.emit(op.nn.relu(b.emit(op.add(conv(b, x, "c"), weight(1, 4, 1, 1)), "y")), "r")
    return [conv(b, y, "out")]


def test_ranges_become_scales():
    mod = module(two_layers, x=SHAPE)
    plan, stats = plan_of(mod), stats_of(mod)
    for name in ("x", "r"):
        record = stats.records[name]
        assert plan.tensors[name].affine == affine(record.min, record.max) and plan.tensors[name].kind == "own"
    assert plan.tensors["r"].zero_point == (0,)
    assert "out" not in plan.tensors  # a float32 output of a layer has no codes
    assert formats(plan) == {"r": "int8", "out": "int8"} and plan.method == "minmax"


def test_weights_and_biases():
    mod = module(two_layers, x=SHAPE)
    plan = plan_of(mod)
    kernel, bias = plan.tensors["r.weight"], plan.tensors["r.bias"]
    limits = np.abs(values(4, 4, 1, 1)).max(axis=(1, 2, 3)) / 127
    np.testing.assert_allclose(kernel.scale, limits, rtol=1e-6)
    assert (kernel.dtype, kernel.axis, set(kernel.zero_point)) == ("int8", 0, {0})
    np.testing.assert_allclose(bias.scale, limits * plan.tensors["x"].scale[0], rtol=1e-6)
    assert (bias.dtype, bias.kind, bias.source) == ("int32", "derived", "x")
    assert "out.bias" not in plan.tensors


def test_a_large_bias_widens_the_scale_of_small_weights():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, const(np.full((2, 4, 1, 1), 1e-6))), "c")
        return [b.emit(op.add(c, const(np.array([100, 0]).reshape(1, 2, 1, 1))), "y")]

    plan = plan_of(module(write, x=SHAPE))
    first, second = plan.tensors["y.weight"].scale
    assert first > 100 * second
    assert 100 / plan.tensors["y.bias"].scale[0] <= 2**23 * 1.001


def test_a_sum_beyond_int32_stays_float():
    def write(b, x):
        return [b.emit(op.matmul(x, const(np.ones((70_000, 1)))), "y")]

    plan = plan_of(module(write, x=(1, 70_000)))
    assert plan.layers["y"].format == "fp32" and "beyond int32" in plan.layers["y"].why


@pytest.mark.parametrize("name", ["node of c", "c", "r", "nn.relu"])
def test_excluded_by_node_tensor_or_type(name):
    plan = plan_of(module(two_layers, x=SHAPE), exclude=[name])
    assert formats(plan) == {"r": "fp32", "out": "int8"} and plan.layers["r"].why == f"excluded as {name}"
    assert "x" not in plan.tensors and "r" in plan.tensors


@pytest.mark.parametrize(
    "option, message",
    [
        ({"exclude": ["node of d"]}, "did you mean 'node of c'"),
        ({"integer_inputs": ["X"]}, "did you mean 'x'"),
        ({"integer_outputs": ["ut"]}, "did you mean 'out'"),
        ({"precision": "int9"}, "did you mean 'int8'"),
        ({"method": "min"}, "did you mean 'minmax'"),
    ],
)
def test_unknown_names(option, message):
    with pytest.raises(QCompileError) as error:
        plan_of(module(two_layers, x=SHAPE), **({"exclude": []} | option))
    assert message.split("'")[1] in str(error.value)


def test_missing_statistics_name_the_tensor():
    with pytest.raises(QCompileError, match="no statistics of this tensor"):
        plan_uniform(model_of(module(two_layers, x=SHAPE)), TensorStats())


def test_fp32_needs_no_statistics():
    plan = plan_uniform(model_of(module(two_layers, x=SHAPE)), None, "fp32")
    assert formats(plan) == {"r": "fp32", "out": "fp32"} and not plan.tensors


def test_concatenated_tensors_share_one_scale():
    def write(b, x):
        small, large = conv(b, x, "small"), b.emit(op.multiply(conv(b, x, "c", seed=1), const(50)), "large")
        return [conv(b, b.emit(op.concat([small, large], 1), "both"), "out")]

    plan = plan_of(module(write, x=SHAPE))
    assert plan.tensors["small"].affine == plan.tensors["large"].affine == plan.tensors["both"].affine
    assert plan.tensors["small"].kind == "shared" and plan.tensors["small"].source == "both"


def test_a_tensor_that_others_read_keeps_its_scale_if_sharing_costs_much():
    def write(b, x):
        small, large = conv(b, x, "small"), b.emit(op.multiply(conv(b, x, "c", seed=1), const(50)), "large")
        return [conv(b, b.emit(op.concat([small, large], 1), "both"), "out"), conv(b, small, "other")]

    plan = plan_of(module(write, x=SHAPE))
    assert plan.tensors["small"].kind == "own" and plan.tensors["large"].affine == plan.tensors["both"].affine


def test_a_tensor_between_two_concats_joins_both():
    def write(b, x):
        first, second, third = (conv(b, x, f"c{i}", seed=i) for i in range(3))
        inner = b.emit(op.concat([first, second], 1), "inner")
        return [conv(b, inner, "a"), conv(b, b.emit(op.concat([inner, third], 1), "outer"), "b")]

    plan = plan_of(module(write, x=SHAPE))
    assert len({plan.tensors[name].affine for name in ("c0", "c1", "c2", "inner", "outer")}) == 1


def test_layers_without_weights_are_integer_between_integers_only():
    def write(b, x):
        first = b.emit(op.sigmoid(x), "first")
        c = conv(b, first, "c")
        middle = b.emit(op.tanh(c), "middle")
        return [b.emit(op.nn.softmax(conv(b, middle, "d"), axis=1), "last")]

    plan = plan_of(module(write, x=SHAPE))
    assert formats(plan) == {"first": "fp32", "c": "int8", "middle": "int8", "d": "int8", "last": "fp32"}
    assert plan.layers["first"].why == "reads x, which is float32"
    assert plan.layers["last"].why == "its result is wanted as float32"
    assert "d" not in plan.tensors


def test_a_layer_that_finds_codes_reads_them():
    def write(b, x):
        c = conv(b, x, "c")
        return [conv(b, c, "d"), b.emit(op.nn.softmax(c, axis=1), "s")]

    assert formats(plan_of(module(write, x=SHAPE)))["s"] == "int8"


def test_islands_are_listed_with_their_reason():
    def write(b, x):
        n = b.emit(op.nn.layer_norm(x, weight(6), weight(6), axes=[-1]), "n")
        return [b.emit(op.matmul(n, weight(6, 3)), "y")]

    plan = plan_of(module(write, x=(2, 6)))
    assert plan.layers["n"].why == "no integer form of nn.layer_norm" and plan.layers["y"].format == "int8"
    assert "n" in plan.tensors


def test_a_weight_that_is_computed_is_refused():
    def write(b, x, w):
        return [b.emit(op.nn.conv2d(x, w), "y")]

    plan = plan_of(module(write, x=SHAPE, w=(3, 4, 1, 1)))
    assert plan.layers["y"].why == "the weight is not a constant" and not plan.tensors


def test_a_residual_is_coded_only_if_the_sum_is():
    def write(b, x, r):
        return [b.emit(op.add(conv(b, x, "c"), r), "y")]

    assert "r" not in plan_of(module(write, x=SHAPE, r=SHAPE)).tensors
    assert "r" in plan_of(module(write, x=SHAPE, r=SHAPE), integer_outputs=["y"]).tensors


def test_constant_tensors_have_scale_one():
    def write(b, x):
        return [conv(b, b.emit(op.nn.relu(b.emit(op.add(conv(b, x, "c"), const([[[[-1e6]]]])), "y")), "zero"), "out")]

    plan = plan_of(module(write, x=SHAPE))
    assert plan.tensors["zero"].affine == affine(0, 0)


def test_a_plan_survives_its_file():
    plan = plan_of(module(two_layers, x=SHAPE), integer_inputs=["x"])
    assert QuantPlan.from_json(plan.to_json()) == plan


def test_infinite_values_keep_their_layers_in_float():
    mod = module(two_layers, x=SHAPE)
    stats = stats_of(mod)
    marked = TensorStats({**stats.records, "r": replace(stats.records["r"], infinite=3)}, stats.samples)
    plan = plan_uniform(model_of(mod), marked)
    assert formats(plan) == {"r": "fp32", "out": "fp32"}
    assert {layer.why for layer in plan.layers.values()} == {"r holds infinite values on the calibration data"}


@pytest.mark.parametrize(("precision", "most"), [("half", 65504), ("fp8_e4m3", 448)])
def test_what_narrow_floats_cannot_hold_stays_float(precision, most):
    """Where statistics say so; the layer before may have the format, as its sums are float32."""
    mod = module(two_layers, x=SHAPE)
    stats = stats_of(mod)
    records = {**stats.records, "r": replace(stats.records["r"], max=2.0 * most)}
    plan = plan_uniform(model_of(mod), TensorStats(records, stats.samples), precision)
    assert formats(plan) == {"r": precision, "out": "fp32"}
    assert plan.layers["out"].why.startswith(f"r reaches {2 * most:.4g}; the largest float")


def test_weights_in_8_bit_floats_have_scales_of_channels():
    mod = module(two_layers, x=SHAPE)
    planned = plan_uniform(model_of(mod), None, "fp8_e4m3").tensors["out.weight"]
    assert (planned.dtype, planned.axis, len(planned.scale)) == ("float8_e4m3fn", 0, 4)
    largest = np.abs(weight(4, 4, 1, 1).value.numpy()).max(axis=(1, 2, 3))
    np.testing.assert_allclose(np.array(planned.scale) * 448, largest, rtol=1e-6)


def test_nan_is_an_error_that_names_the_tensor():
    mod = module(two_layers, x=SHAPE)
    stats = stats_of(mod)
    broken = TensorStats({**stats.records, "r": replace(stats.records["r"], nan=2)}, stats.samples)
    with pytest.raises(QCompileError, match="^r: 2 of its values are NaN on the calibration data; look at the scale"):
        plan_uniform(model_of(mod), broken)
