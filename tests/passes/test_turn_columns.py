from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile import graph
from qcompile.passes.base import shape_of
from qcompile.passes.turn_columns import turn_columns
from tests.passes.float_modules import const, inputs_of, module, operators, run_all, values, weight

op = relax.op
COLUMN = (2, 6, 20, 1)


def conv(b, x, name="c", outputs=8, kernel=3, **options):
    groups = options.get("groups", 1)
    return b.emit(op.nn.conv2d(x, weight(outputs, int(x.ty.shape[1]) // groups, kernel, 1), **options), name)


def plain(b, x):
    return [conv(b, x, "y", padding=(2, 0, 1, 0), strides=(2, 1), dilation=(3, 1))]


def network(b, x):
    c = b.emit(op.add(conv(b, x, "c"), weight(1, 8, 1, 1)), "biased")
    r = b.emit(op.nn.relu(c), "r")
    d = conv(b, r, "d", groups=8, padding=(1, 0, 1, 0))
    s = b.emit(op.add(d, r), "s")
    p = b.emit(op.nn.max_pool2d(s, (3, 1), (2, 1), (0, 0, 1, 0)), "p")
    q = b.emit(op.nn.avg_pool2d(p, (2, 1), (1, 1), (1, 0, 0, 0)), "q")
    m = b.emit(op.mean(q, [2, 3], keepdims=True), "m")
    scaled = b.emit(op.multiply(q, m), "scaled")
    return [b.emit(op.sigmoid(scaled), "y")]


def broadcast(b, x):
    c = conv(b, x)
    a = b.emit(op.add(c, const(values(18, 1))), "a")
    m = b.emit(op.multiply(const(values(2, 8, 1, 1)), a), "m")
    return [b.emit(op.subtract(m, const(1.5)), "y")]


def many_readers(b, x):
    """Outputs, and operators that do not turn: they get columns."""
    c = conv(b, x)
    wide = b.emit(op.add(c, const(values(1, 4))), "wide")
    rows = b.emit(op.permute_dims(c, [2, 0, 1, 3]), "rows")
    whole = b.emit(op.astype(c, "int32"), "whole")
    return [c, wide, rows, whole, conv(b, c, "e")]


def to_one_pixel(b, x):
    c = conv(b, x, kernel=20)
    return [b.emit(op.reshape(b.emit(op.nn.relu(c), "r"), (2, 8)), "y"), c]


def channels_last(b, x):
    return [conv(b, b.emit(op.permute_dims(x, [0, 3, 1, 2]), "moved"), "y")]


CASES = {
    "one": (plain, COLUMN, ["reshape", "conv2d", "reshape"]),
    "network": (
        network,
        COLUMN,
        [
            "reshape",
            "conv2d",
            "add",
            "relu",
            "conv2d",
            "add",
            "max_pool2d",
            "avg_pool2d",
            "mean",
            "multiply",
            "sigmoid",
            "reshape",
        ],
    ),
    "broadcast": (broadcast, COLUMN, ["reshape", "conv2d", "add", "multiply", "subtract", "reshape"]),
    "many readers": (
        many_readers,
        COLUMN,
        ["reshape", "conv2d", "reshape", "add", "permute_dims", "astype", "conv2d", "reshape"],
    ),
    "to one pixel": (to_one_pixel, COLUMN, ["reshape", "conv2d", "relu", "reshape"]),
    "channels last": (channels_last, (2, 20, 1, 6), ["permute_dims", "conv2d", "reshape"]),
}


@pytest.mark.parametrize("name", CASES)
def test_columns_become_rows(name):
    write, shape, expected = CASES[name]
    before = module(write, x=shape)
    after = turn_columns(before)
    relax.analysis.well_formed(after)
    assert operators(after) == expected
    assert [o.name for o in graph.read(after).outputs] == [o.name for o in graph.read(before).outputs]
    for var, value in graph.read(after).bindings:
        if isinstance(value, relax.Call) and value.op.name == "relax.nn.conv2d":
            assert shape_of(var)[2] == 1 and shape_of(value.args[1])[2] == 1
    want, got = run_all([before, after], *inputs_of(before))
    for w, g in zip(want, got, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)


def images(b, x):
    return [conv(b, x, "y")]


def padded_beside(b, x):
    return [conv(b, x, "y", padding=(0, 1, 0, 1))]


def without_convolution(b, x):
    return [b.emit(op.nn.relu(x), "y")]


@pytest.mark.parametrize(
    ("write", "shape"), [(images, (1, 6, 9, 2)), (padded_beside, COLUMN), (without_convolution, COLUMN)]
)
def test_others_stay(write, shape):
    before = module(write, x=shape)
    assert turn_columns(before).same_as(before)
