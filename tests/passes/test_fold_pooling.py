from __future__ import annotations

import logging

import numpy as np
import pytest
from tvm import relax

from qcompile import ops
from qcompile.passes.composite_pooling import taps
from qcompile.reference.interpreter import run
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import (
    assert_within_a_step,
    feeds_of,
    integer_of,
    kinds,
    plan_of,
    specs_of,
)

op = relax.op

POOLS = {
    "avg_pool": lambda x: op.nn.avg_pool2d(x, (2, 2), strides=(2, 2)),
    "padded": lambda x: op.nn.avg_pool2d(x, (3, 3), strides=(2, 2), padding=(1, 1, 0, 2), count_include_pad=False),
    "padding counts": lambda x: op.nn.avg_pool2d(x, (3, 3), padding=(1, 1), count_include_pad=True),
    "mean": lambda x: op.mean(x, [2, 3], keepdims=True),
    "mean of an axis": lambda x: op.mean(x, [-1], keepdims=True),
    "resize": lambda x: op.image.resize2d(x, (12, 9), layout="NCHW", method="linear"),
    "softmax": lambda x: op.nn.softmax(x, axis=1),
}


def between_convolutions(pool, shape=(2, 4, 6, 6)):
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(5, 4, 1, 1)), "c")
        y = b.emit(pool(c), "y")
        return [b.emit(op.nn.conv2d(y, weight(3, 5, 1, 1)), "wants codes")]

    return module(write, x=shape)


@pytest.mark.parametrize("name", POOLS)
def test_one_composite_within_a_step(name):
    mod = between_convolutions(POOLS[name])
    plan = plan_of(mod)
    result = integer_of(mod, plan)
    assert len(kinds(result)) == 4 and kinds(result)[2].isupper()
    assert_within_a_step(mod, plan, ["y"])


def test_pooling_of_sequences():
    def write(b, x):
        c = b.emit(op.nn.conv1d(x, weight(5, 4, 3)), "c")
        y = b.emit(op.nn.avg_pool1d(c, 3, strides=2, padding=(1, 1)), "y")
        m = b.emit(op.mean(b.emit(op.nn.max_pool1d(y, 2), "p"), [2], keepdims=True), "m")
        return [b.emit(op.nn.conv1d(m, weight(3, 5, 1)), "wants codes")]

    mod = module(write, x=(2, 4, 12))
    plan = plan_of(mod)
    assert kinds(integer_of(mod, plan)) == ["quantize", "CONV2D", "AVG_POOL2D", "max_pool1d", "MEAN", "CONV2D"]
    assert_within_a_step(mod, plan, ["y"])


def test_an_activation_is_part_of_it():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(5, 4, 1, 1)), "c")
        y = b.emit(op.nn.relu(b.emit(op.nn.avg_pool2d(c, (2, 2)), "pool")), "y")
        return [b.emit(op.nn.conv2d(y, weight(3, 5, 1, 1)), "wants codes")]

    mod = module(write, x=(2, 4, 6, 6))
    plan = plan_of(mod)
    assert specs_of(integer_of(mod, plan))[1].epilogue.clip == (0, np.inf)
    assert_within_a_step(mod, plan, ["y"])


def test_softmax_has_a_fixed_scale():
    plan = plan_of(between_convolutions(POOLS["softmax"]))
    assert plan.tensors["y"].kind == "fixed" and plan.tensors["y"].affine == ops.Affine(float(np.float32(1 / 255)), 0)


def test_a_mean_of_codes_may_be_float():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(5, 4, 1, 1)), "c")
        return [b.emit(op.mean(c, [2, 3], keepdims=True), "y")]

    mod = module(write, x=(2, 4, 6, 6))
    spec = specs_of(integer_of(mod))[1]
    assert isinstance(spec, ops.Mean) and spec.x is not None and spec.epilogue.out is None
    expected, actual = run(mod, feeds_of(mod))["y"], run(integer_of(mod), feeds_of(mod))["y"]
    np.testing.assert_allclose(actual, expected, atol=0.02)


def test_a_softmax_over_too_many_elements_is_refused():
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(512, 4, 1, 1)), "c")
        y = b.emit(op.nn.softmax(c, axis=1), "y")
        return [b.emit(op.nn.conv2d(y, weight(3, 512, 1, 1)), "z")]

    plan = plan_of(module(write, x=(1, 4, 2, 2)))
    assert plan.layers["y"].format == "fp32" and "511" in plan.layers["y"].why


def test_a_layer_that_the_plan_keeps_in_float_stays(caplog):
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(5, 4, 1, 1)), "c")
        return [b.emit(op.mean(c, [2, 3], keepdims=True), "y"), b.emit(op.nn.conv2d(c, weight(3, 5, 1, 1)), "z")]

    mod = module(write, x=(2, 4, 6, 6))
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        result = integer_of(mod, exclude=["node of y"])
    assert "dequantize" in kinds(result) and "y: float32 by the plan" in caplog.text
    assert [s.x is None for s in specs_of(result) if isinstance(s, ops.Mean)] == [True]


@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"])
def test_taps_interpolate_as_tvm_does(coordinates):
    def write(b, x):
        resized = op.image.resize2d(
            x, (9, 3), layout="NCHW", method="linear", coordinate_transformation_mode=coordinates
        )
        return [b.emit(resized, "y")]

    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, 4, 5)).astype("float32")
    expected = run(module(write, x=x.shape), {"x": x})["y"]
    (rows, of_row), (columns, of_column) = taps(4, 9, coordinates), taps(5, 3, coordinates)
    assert (of_row.sum(axis=1) == 2048).all()
    tall = (x[0, 0][rows] * (of_row / 2048)[:, :, None]).sum(axis=1)
    actual = (tall[:, columns] * of_column / 2048).sum(axis=2)
    np.testing.assert_allclose(actual, expected[0, 0], atol=1e-3)


def test_taps_of_a_single_result_are_inside():
    index, factor = taps(1, 1, "align_corners")
    assert index.tolist() == [[0, 0]] and factor.sum() == 2048
