from __future__ import annotations

import pytest
from tvm import relax

from qcompile.passes.fold_input_scale import fold_input_scale
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


def scaled(b, x, shift: bool, channels: int = 4):
    shape = (1, channels, *[1] * (len(x.ty.shape) - 2))
    x = b.emit(op.multiply(x, const(values(*shape, seed=1))), "scaled")
    return b.emit(op.add(x, const(values(*shape, seed=2))), "shifted") if shift else x


def test_a_scale_goes_through_padding():
    w, s = values(6, 4, 3, 3), values(1, 4, 1, 1, seed=1)

    def before(b, x):
        return [b.emit(op.nn.conv2d(scaled(b, x, shift=False), const(w), padding=1), "y")]

    def after(b, x):
        return [b.emit(op.nn.conv2d(x, const(w.astype("float64") * s), padding=1), "y")]

    check(fold_input_scale, module(before, x=(1, 4, 5, 5)), module(after, x=(1, 4, 5, 5)))


LAYERS = {
    "plain": ((2, 4, 5, 5), lambda x: op.nn.conv2d(x, weight(6, 4, 3, 3), strides=2), True),
    "grouped": ((1, 4, 5, 5), lambda x: op.nn.conv2d(x, weight(6, 2, 3, 3), groups=2), True),
    "depthwise": ((1, 4, 5, 5), lambda x: op.nn.conv2d(x, weight(4, 1, 3, 3), groups=4), True),
    "conv1d": ((2, 4, 9), lambda x: op.nn.conv1d(x, weight(6, 2, 3), groups=2, dilation=2), True),
    "transposed": ((1, 4, 5, 5), lambda x: op.nn.conv2d_transpose(x, weight(4, 3, 3, 3), groups=2), False),
    "transposed 1d": ((1, 4, 5), lambda x: op.nn.conv1d_transpose(x, weight(4, 3, 3)), False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_convolution(name):
    shape, layer, shift = LAYERS[name]
    mod = module(lambda b, x: [b.emit(layer(scaled(b, x, shift)), "y")], x=shape)
    result = fold_input_scale(mod)
    assert len(operators(result)) == (2 if shift else 1) and names(result)[-1] == "y"
    check_same_results(mod, result)


def test_dense():
    def write(b, x):
        x = b.emit(op.multiply(x, const(values(5, seed=1))), "scaled")
        x = b.emit(op.add(x, const(2.0)), "shifted")
        return [b.emit(op.matmul(x, weight(5, 3)), "y")]

    mod = module(write, x=(2, 4, 5))
    result = fold_input_scale(mod)
    assert operators(result) == ["matmul", "add"] and names(result) == ["y~matmul", "y"]
    check_same_results(mod, result)


def test_a_scale_is_folded_though_the_shift_before_it_is_not(caplog):
    def write(b, x):
        x = b.emit(op.add(x, const(2.0)), "shifted")
        x = b.emit(op.multiply(x, const(3.0)), "scaled")
        return [b.emit(op.nn.conv2d(x, weight(3, 4, 3, 3), padding=1), "y")]

    mod = module(write, x=(1, 4, 5, 5))
    with caplog.at_level("DEBUG", "qcompile.passes"):
        result = fold_input_scale(mod)
    assert operators(result) == ["add", "conv2d"]
    assert "y: a shift in front of a convolution with padding" in caplog.text
    check_same_results(mod, result)


REFUSALS = {
    "a shift in front of a convolution with padding": lambda b, x: [
        b.emit(op.nn.conv2d(scaled(b, x, True), weight(3, 4, 3, 3), padding=1), "y")
    ],
    "a shift in front of a transposed convolution is not the same at borders": lambda b, x: [
        b.emit(op.nn.conv2d_transpose(scaled(b, x, True), weight(4, 3, 3, 3)), "y")
    ],
    "the scaled input has another use": lambda b, x: [
        b.emit(op.nn.conv2d(s := scaled(b, x, False), weight(3, 4, 3, 3)), "y"),
        s,
    ],
    "the constant is not one number for each input channel": lambda b, x: [
        b.emit(op.nn.conv2d(b.emit(op.multiply(x, const(values(1, 1, 5, 5))), "m"), weight(3, 4, 3, 3)), "y")
    ],
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals(reason, caplog):
    with caplog.at_level("DEBUG", "qcompile.passes"):
        check_unchanged(fold_input_scale, module(REFUSALS[reason], x=(1, 4, 5, 5)))
    assert f"y: {reason}" in caplog.text


def test_the_bias_of_a_layer_in_front_stays():
    def write(b, x):
        first = b.emit(op.nn.conv2d(x, weight(4, 4, 1, 1)), "conv")
        return [b.emit(op.nn.conv2d(b.emit(op.add(first, const(2.0)), "biased"), weight(3, 4, 1, 1)), "y")]

    check_unchanged(fold_input_scale, module(write, x=(1, 4, 5, 5)))
