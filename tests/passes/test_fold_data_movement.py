from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile import graph
from qcompile.ops import Affine
from qcompile.passes.fold_data_movement import fold_data_movement
from qcompile.passes.movement import moves
from qcompile.passes.quantized import dequantize, quantize
from qcompile.reference.interpreter import run
from tests.passes.float_modules import module, values
from tests.passes.quantized_modules import kinds

op = relax.op
Q = Affine(0.02, 77)
SHAPE = (2, 4, 6, 6)


def decoded(b, x, q=Q, name="x"):
    return b.emit(dequantize(b.emit(quantize(x, q), f"{name}.q"), q), f"{name}.dq")


def moving(move):
    return module(lambda b, x: [b.emit(move(decoded(b, x)), "y")], x=SHAPE)


MOVES = {
    "reshape": lambda x: op.reshape(x, (2, 144)),
    "permute_dims": lambda x: op.permute_dims(x, [0, 2, 3, 1]),
    "strided_slice": lambda x: op.strided_slice(x, [1], [1], [4], [2]),
    "max_pool2d": lambda x: op.nn.max_pool2d(x, (3, 3), strides=(2, 2), padding=(1, 1)),
    "pad": lambda x: op.nn.pad(x, [0, 0, 0, 0, 1, 2, 0, 1]),
    "flip": lambda x: op.flip(x, 2),
    "tile": lambda x: op.tile(x, (1, 1, 2, 1)),
    "broadcast_to": lambda x: op.broadcast_to(x, (3, *SHAPE)),
    "max": lambda x: op.max(x, [2, 3], keepdims=True),
    "take": lambda x: op.take(x, relax.const(np.array([3, 0, 0], np.int64)), 2),
    "image.resize2d": lambda x: op.image.resize2d(
        x, (12, 12), layout="NCHW", method="nearest_neighbor", coordinate_transformation_mode="asymmetric"
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_codes_move_instead_of_real_numbers(name):
    before = moving(MOVES[name])
    after = fold_data_movement(before)
    relax.analysis.well_formed(after)
    assert kinds(after) == ["quantize", name, "dequantize"]
    feeds = {"x": values(*SHAPE, low=-1.5, high=3.5)}
    expected, actual = (next(iter(run(m, feeds).values())) for m in (before, after))
    np.testing.assert_array_equal(actual, expected)


def test_rows_that_indices_choose_at_run_time_are_no_move():
    """Of a constant table; it has a pass of its own."""
    indices = relax.Var("i", relax.TensorType((3,), "int64"))
    table = relax.const(np.ones((4, 5), np.float32))
    assert not moves(relax.op.take(table, indices, 0)) and not moves(relax.op.broadcast_to(table, (9, 4, 5)))


def test_codes_keep_the_tensor_s_name():
    main = graph.read(fold_data_movement(moving(MOVES["reshape"])))
    assert [v.name for v, _ in main.bindings] == ["x.q", "y", "y.dq"]


def test_split_and_its_fields():
    def write(b, x):
        parts = b.emit(op.split(decoded(b, x), [1], axis=1), "parts")
        return [b.emit(relax.TupleGetItem(parts, i), f"part{i}") for i in range(2)]

    before = module(write, x=SHAPE)
    after = fold_data_movement(before)
    assert kinds(after).count("dequantize") == 2 and kinds(after).count("split") == 1
    feeds = {"x": values(*SHAPE)}
    for expected, actual in zip(run(before, feeds).values(), run(after, feeds).values(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_concat_of_equal_codes():
    def write(b, x, z):
        parts = [decoded(b, x), decoded(b, z, name="z")]
        return [b.emit(op.concat(parts, 1), "y")]

    after = fold_data_movement(module(write, x=SHAPE, z=SHAPE))
    assert kinds(after) == ["quantize", "quantize", "concat", "dequantize"]


def test_concat_of_different_codes_stays():
    def write(b, x, z):
        return [b.emit(op.concat([decoded(b, x), decoded(b, z, Affine(0.03, 77), "z")], 1), "y")]

    before = module(write, x=SHAPE, z=SHAPE)
    assert kinds(fold_data_movement(before)) == kinds(before)


@pytest.mark.parametrize(
    "stays",
    [
        lambda x: op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], pad_value=100.0),  # beyond what codes can hold
        lambda x: op.image.resize2d(x, (12, 12), layout="NCHW", method="linear"),
        lambda x: op.nn.relu(x),
    ],
)
def test_what_changes_values_stays(stays):
    before = moving(stays)
    assert kinds(fold_data_movement(before)) == kinds(before)


def test_others_still_read_the_real_numbers():
    def write(b, x):
        d = decoded(b, x)
        return [b.emit(op.reshape(d, (2, 144)), "y"), b.emit(op.exp(d), "e")]

    assert kinds(fold_data_movement(module(write, x=SHAPE))) == [
        "quantize",
        "dequantize",
        "reshape",
        "dequantize",
        "exp",
    ]
