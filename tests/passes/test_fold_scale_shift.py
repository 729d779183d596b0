from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile.passes.fold_scale_shift import fold_scale_shift
from tests.passes.float_modules import (
    check,
    check_same_results,
    check_unchanged,
    const,
    module,
    names,
    operators,
    values,
    weight,
)

op = relax.op


def per_channel(seed: int, channels: int = 4, trailing: int = 2) -> np.ndarray:
    return values(1, channels, *[1] * trailing, seed=seed, low=0.5, high=2)


def test_scale_and_shift_become_weight_and_bias():
    w, s, t = values(4, 3, 3, 3), per_channel(1), per_channel(2)

    def before(b, x):
        conv = b.emit(op.nn.conv2d(x, const(w), padding=1), "conv")
        scaled = b.emit(op.multiply(conv, const(s)), "scaled")
        return [b.emit(op.add(scaled, const(t)), "y")]

    def after(b, x):
        conv = b.emit(op.nn.conv2d(x, const(w.astype("float64") * s.reshape(4, 1, 1, 1)), padding=1), "conv")
        return [b.emit(op.add(conv, const(t)), "y")]

    check(fold_scale_shift, module(before, x=(2, 3, 5, 5)), module(after, x=(2, 3, 5, 5)))


def test_a_chain_of_all_four_operators_with_scalars():
    def before(b, x):
        conv = b.emit(op.nn.conv2d(x, weight(4, 3, 1, 1)), "conv")
        y = b.emit(op.add(conv, const(per_channel(1))), "a")
        y = b.emit(op.multiply(y, const(3.0)), "b")
        y = b.emit(op.subtract(y, const(per_channel(2))), "c")
        y = b.emit(op.divide(y, const(per_channel(3))), "d")
        return [b.emit(op.add(y, const([[[0.25]]])), "y")]

    mod = module(before, x=(1, 3, 2, 2))
    result = fold_scale_shift(mod)
    assert operators(result) == ["conv2d", "add"] and names(result) == ["conv", "y"]
    check_same_results(mod, result)


def test_scale_alone_gives_the_convolution_its_name():
    mod = module(
        lambda b, x: [b.emit(op.multiply(b.emit(op.nn.conv2d(x, weight(4, 3, 1, 1)), "conv"), const(2.0)), "y")],
        x=(1, 3, 2, 2),
    )
    result = fold_scale_shift(mod)
    assert operators(result) == ["conv2d"] and names(result) == ["y"]
    check_same_results(mod, result)


LAYERS = {
    "grouped": ((2, 4, 5, 5), lambda x: op.nn.conv2d(x, weight(6, 2, 3, 3), groups=2, strides=2), 6),
    "depthwise": ((1, 4, 5, 5), lambda x: op.nn.conv2d(x, weight(4, 1, 3, 3), groups=4, padding=1), 4),
    "conv1d": ((2, 4, 9), lambda x: op.nn.conv1d(x, weight(6, 4, 3), padding=1), 6),
    "transposed": ((1, 4, 5, 5), lambda x: op.nn.conv2d_transpose(x, weight(4, 6, 3, 3), strides=(2, 2)), 6),
    "transposed, grouped": ((1, 4, 5, 5), lambda x: op.nn.conv2d_transpose(x, weight(4, 3, 3, 3), groups=2), 6),
    "transposed 1d": ((1, 4, 5), lambda x: op.nn.conv1d_transpose(x, weight(4, 3, 3), groups=2), 6),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_convolution(name):
    shape, layer, channels = LAYERS[name]

    def before(b, x):
        y = b.emit(layer(x), "conv")
        y = b.emit(op.multiply(y, const(per_channel(1, channels, len(shape) - 2))), "m")
        return [b.emit(op.add(y, const(per_channel(2, channels, len(shape) - 2))), "y")]

    mod = module(before, x=shape)
    result = fold_scale_shift(mod)
    assert len(operators(result)) == 2 and names(result) == ["conv", "y"]
    check_same_results(mod, result)


def test_dense():
    def before(b, x):
        y = b.emit(op.matmul(x, weight(5, 4)), "product")
        y = b.emit(op.add(y, const(values(1, 1, 4))), "biased")
        return [b.emit(op.multiply(y, const(values(4, seed=1))), "y")]

    mod = module(before, x=(2, 3, 5))
    result = fold_scale_shift(mod)
    assert operators(result) == ["matmul", "add"] and names(result) == ["product", "y"]
    check_same_results(mod, result)


def test_a_weight_that_two_layers_share_is_scaled_for_one():
    w = weight(3, 3, 1, 1)

    def before(b, x):
        first = b.emit(op.multiply(b.emit(op.nn.conv2d(x, w), "conv1"), const(3.0)), "scaled")
        return [b.emit(op.nn.conv2d(first, w), "y")]

    mod = module(before, x=(1, 3, 2, 2))
    result = fold_scale_shift(mod)
    assert operators(result) == ["conv2d", "conv2d"]
    check_same_results(mod, result)


def refused(caplog, write, reason, **inputs):
    mod = module(write, **inputs)
    with caplog.at_level("DEBUG", "qcompile.passes"):
        check_unchanged(fold_scale_shift, mod)
    assert reason in caplog.text


def test_a_layer_read_twice_is_left(caplog):
    def write(b, x):
        conv = b.emit(op.nn.conv2d(x, weight(4, 3, 1, 1)), "conv")
        return [b.emit(op.multiply(conv, const(2.0)), "y"), conv]

    refused(caplog, write, "y: the layer's result has another use", x=(1, 3, 2, 2))


def test_a_bias_read_twice_is_left(caplog):
    def write(b, x):
        conv = b.emit(op.nn.conv2d(x, weight(4, 3, 1, 1)), "conv")
        biased = b.emit(op.add(conv, const(per_channel(1))), "biased")
        return [b.emit(op.multiply(biased, const(2.0)), "y"), b.emit(op.nn.relu(biased), "z")]

    refused(caplog, write, "y: the layer's result has another use", x=(1, 3, 2, 2))


def test_a_constant_for_each_pixel_is_left(caplog):
    def write(b, x):
        conv = b.emit(op.nn.conv2d(x, weight(4, 3, 1, 1)), "conv")
        return [b.emit(op.add(conv, const(values(1, 4, 2, 2))), "y")]

    refused(caplog, write, "y: the constant is not one number for each output channel", x=(1, 3, 2, 2))


def test_a_constant_that_broadcasts_the_result_is_left(caplog):
    def write(b, x):
        conv = b.emit(op.nn.conv2d(x, weight(1, 3, 1, 1)), "conv")
        return [b.emit(op.multiply(conv, const(per_channel(1, 5))), "y")]

    refused(caplog, write, "y: the constant is not one number for each output channel", x=(1, 3, 2, 2))


def test_a_variable_weight_is_left(caplog):
    def write(b, x, w):
        return [b.emit(op.multiply(b.emit(op.nn.conv2d(x, w), "conv"), const(2.0)), "y")]

    refused(caplog, write, "y: the weight is not a constant", x=(1, 3, 2, 2), w=(4, 3, 1, 1))


def test_division_by_zero_is_left(caplog):
    def write(b, x):
        return [b.emit(op.divide(b.emit(op.nn.conv2d(x, weight(1, 3, 1, 1)), "conv"), const(0.0)), "y")]

    refused(caplog, write, "y: division by zero", x=(1, 3, 2, 2))


def test_the_bias_of_a_layer_read_twice_takes_its_canonical_shape():
    def before(b, x):
        conv = b.emit(op.nn.conv2d(x, weight(4, 3, 1, 1)), "conv")
        return [b.emit(op.add(conv, const(2.0)), "y"), conv]

    def after(b, x):
        conv = b.emit(op.nn.conv2d(x, weight(4, 3, 1, 1)), "conv")
        return [b.emit(op.add(conv, const(np.full((1, 4, 1, 1), 2.0))), "y"), conv]

    check(fold_scale_shift, module(before, x=(1, 3, 2, 2)), module(after, x=(1, 3, 2, 2)))
