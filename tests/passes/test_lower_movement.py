"""Operators that move elements: which become kernels, which nothing at all, which are left to TVM."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile.compile import runnable
from qcompile.reference import interpreter
from qcompile.targets.select import select_target
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import feeds_of, integer_of
from tests.passes.test_lower_layers import conv, kernels, lowered, operators

op = relax.op


def channels_first(b, x):
    moved = b.emit(op.permute_dims(x, [0, 3, 1, 2]), "moved")
    return [conv(b, moved, 16, "y")]


def channels_last(b, x):
    return [b.emit(op.permute_dims(conv(b, x, 20, "c"), [0, 2, 3, 1]), "y")]


def heads(b, x):
    return [b.emit(op.permute_dims(x, [0, 2, 1, 3]), "y")]


def rows_and_columns(b, x):
    return [b.emit(op.permute_dims(x, [0, 1, 3, 2]), "y")]


def one_axis_of_many(b, x):
    return [b.emit(op.permute_dims(x, [0, 2, 3, 1]), "y")]


CASES = {
    "an input is permuted into blocks": (
        channels_first,
        (1, 6, 5, 16),
        ["quantize", "permute_dims", "conv2d", "relayout"],
        [],
    ),
    "blocks are permuted into rows": (channels_last, (1, 16, 6, 5), ["quantize", "conv2d", "permute_dims"], []),
    "rows": (heads, (1, 6, 4, 20), ["permute_dims"], []),
    "a matrix is left to TVM": (rows_and_columns, (2, 3, 6, 5), [], ["permute_dims"]),
    "a view": (one_axis_of_many, (1, 1, 1, 20), [], []),
}


@pytest.mark.parametrize("name", CASES)
def test_permute_dims(name):
    write, shape, expected, islands = CASES[name]
    mod = lowered(write, x=shape)
    assert kernels(mod) == expected and operators(mod) == islands
    integer = integer_of(module(write, x=shape))
    feeds = feeds_of(module(write, x=shape))
    actual = runnable(integer, select_target("native"))(feeds)["y"]
    np.testing.assert_array_equal(actual, interpreter.run(integer, feeds)["y"])


def test_a_sequence_becomes_an_image_of_one_row_for_nothing():
    def write(b, x):
        c = b.emit(op.nn.conv1d(x, weight(20, 16, 3), padding=1), "c")
        image = b.emit(op.reshape(c, (1, 20, 1, 9)), "image")
        return [b.emit(op.nn.conv2d(image, weight(16, 20, 1, 1)), "y")]

    mod = lowered(write, x=(1, 16, 9))
    assert kernels(mod) == ["quantize", "conv2d", "conv2d", "relayout"]
    integer, feeds = integer_of(module(write, x=(1, 16, 9))), feeds_of(module(write, x=(1, 16, 9)))
    actual = runnable(integer, select_target("native"))(feeds)["y"]
    np.testing.assert_array_equal(actual, interpreter.run(integer, feeds)["y"])
