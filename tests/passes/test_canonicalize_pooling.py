from __future__ import annotations

import pytest
from tvm import relax

from qcompile.passes.canonicalize_pooling import canonicalize_pooling
from tests.passes.float_modules import check, check_unchanged, module

op = relax.op
IMAGE, SEQUENCE = (2, 3, 4, 5), (2, 3, 5)


def one(write, shape):
    return module(lambda b, x: [b.emit(write(x), "y")], x=shape)


GLOBAL = {
    "a window of the whole image": (IMAGE, lambda x: op.nn.avg_pool2d(x, (4, 5))),
    "strides do not matter": (IMAGE, lambda x: op.nn.avg_pool2d(x, (4, 5), strides=(2, 3), count_include_pad=True)),
    "adaptive": (IMAGE, lambda x: op.nn.adaptive_avg_pool2d(x, (1, 1))),
    "negative axes": (IMAGE, lambda x: op.mean(x, [-1, -2], keepdims=True)),
    "sequence": (SEQUENCE, lambda x: op.nn.avg_pool1d(x, 5)),
    "adaptive, sequence": (SEQUENCE, lambda x: op.nn.adaptive_avg_pool1d(x, 1)),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_global(name):
    shape, pool = GLOBAL[name]
    axes = list(range(2, len(shape)))
    check(canonicalize_pooling, one(pool, shape), one(lambda x: op.mean(x, axes, keepdims=True), shape))


def test_a_mean_without_axes_left_is_a_reshape_of_one_with():
    def after(b, x):
        return [b.emit(op.reshape(b.emit(op.mean(x, [2, 3], keepdims=True), "y~mean"), (2, 3)), "y")]

    check(canonicalize_pooling, one(lambda x: op.mean(x, [2, 3]), IMAGE), module(after, x=IMAGE))


LEFT = {
    "local": lambda x: op.nn.avg_pool2d(x, (2, 2)),
    "one window, not all of the image": lambda x: op.nn.avg_pool2d(x, (3, 5), strides=(2, 1)),
    "padding": lambda x: op.nn.avg_pool2d(x, (6, 7), padding=(1, 1), count_include_pad=True),
    "max": lambda x: op.nn.max_pool2d(x, (4, 5)),
    "adaptive to 2 x 5": lambda x: op.nn.adaptive_avg_pool2d(x, (2, 5)),
    "channels last": lambda x: op.nn.avg_pool2d(x, (3, 4), layout="NHWC"),
    "mean over channels": lambda x: op.mean(x, [1], keepdims=True),
    "mean": lambda x: op.mean(x, [2, 3], keepdims=True),
    "mean over all": lambda x: op.mean(x),
}


@pytest.mark.parametrize("name", LEFT)
def test_left(name):
    check_unchanged(canonicalize_pooling, one(LEFT[name], IMAGE))
