from __future__ import annotations

import logging

import numpy as np
import pytest
from tvm import relax

from qcompile import ops
from qcompile.passes.fuse_float import fuse_float
from qcompile.reference.interpreter import run
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import feeds_of, kinds, specs_of
from tests.passes.test_fold_weighted import LAYERS, layer

op = relax.op


def check(mod):
    """One composite for each chain, and the same results."""
    result = fuse_float()(mod)
    relax.analysis.well_formed(result)
    feeds = feeds_of(mod)
    for expected, actual in zip(run(mod, feeds).values(), run(result, feeds).values(), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    return result


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    mod = layer(*LAYERS[name], activation=op.nn.relu)
    result = check(mod)
    assert kinds(result) == [specs_of(result)[0].op.upper(), "DENSE"] and specs_of(result)[0].x is None


def test_residual_and_clip():
    spec = specs_of(check(layer(*LAYERS["conv"], activation=lambda y: op.clip(y, 0, 1), residual=True)))[0]
    assert spec.epilogue == ops.Epilogue(clip=(0, 1), residual_is_float=True)


def test_sums_and_means():
    def write(b, x, z):
        y = b.emit(op.nn.relu(b.emit(op.add(x, z), "s")), "y")
        pool = b.emit(op.nn.avg_pool2d(y, (2, 2), padding=(1, 1)), "pool")
        return [b.emit(op.mean(pool, [2, 3], keepdims=True), "m")]

    assert kinds(check(module(write, x=(2, 4, 6, 6), z=(2, 4, 1, 1)))) == ["BINARY", "AVG_POOL2D", "MEAN"]


def test_a_computed_weight_is_refused(caplog):
    mod = module(lambda b, x, w: [b.emit(op.nn.conv2d(x, w), "y")], x=(1, 4, 5, 5), w=(3, 4, 1, 1))
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        assert kinds(fuse_float()(mod)) == ["conv2d"]
    assert "the weight is not a constant" in caplog.text


def test_another_layout_is_refused(caplog):
    def write(b, x):
        return [b.emit(op.nn.conv2d(x, weight(3, 4, 1, 1), data_layout="NHWC"), "y")]

    mod = module(write, x=(1, 5, 5, 4))
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        assert kinds(fuse_float()(mod)) == ["conv2d"]
    assert "layout NHWC" in caplog.text


def test_functions_and_softmax_stay_operators():
    mod = module(lambda b, x: [b.emit(op.sigmoid(x), "y"), b.emit(op.nn.softmax(x), "s")], x=(2, 4))
    assert kinds(fuse_float()(mod)) == ["sigmoid", "softmax"]
