from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile.passes.decompose_batch_norm import decompose_batch_norm
from tests.passes.float_modules import check, check_same_results, check_unchanged, const, module, operators, values

op = relax.op
GAMMA, BETA, MEAN, VARIANCE = (values(3, seed=i, low=0.5, high=2) for i in range(4))


def norm(b, x, axis=1, training=False, **flags):
    arrays = map(const, (GAMMA, BETA, MEAN, VARIANCE))
    t = b.emit(op.nn.batch_norm(x, *arrays, axis=axis, epsilon=1e-3, training=training, **flags), "bn~batch_norm")
    return [b.emit(relax.TupleGetItem(t, 0), "bn")]


def test_one_multiplication_and_one_addition():
    scale = GAMMA.astype("float64") / np.sqrt(VARIANCE.astype("float64") + 1e-3)
    shift = BETA - MEAN * scale

    def after(b, x):
        product = b.emit(op.multiply(x, const(scale.reshape(1, 3, 1, 1))), "bn~multiply")
        return [b.emit(op.add(product, const(shift.reshape(1, 3, 1, 1))), "bn")]

    check(decompose_batch_norm, module(norm, x=(2, 3, 4, 4)), module(after, x=(2, 3, 4, 4)))


@pytest.mark.parametrize("shape, axis", [((2, 3, 5), 1), ((2, 3), 1), ((2, 4, 3), -1)])
def test_other_ranks_and_axes(shape, axis):
    mod = module(lambda b, x: norm(b, x, axis), x=shape)
    check_same_results(mod, decompose_batch_norm(mod))


def test_without_scale_and_center():
    mod = module(lambda b, x: norm(b, x, scale=False, center=False), x=(1, 3, 2, 2))
    result = decompose_batch_norm(mod)
    assert operators(result) == ["multiply", "add"]
    check_same_results(mod, result)


def test_training_mode_is_left(caplog):
    with caplog.at_level("DEBUG", "qcompile.passes"):
        check_unchanged(decompose_batch_norm, module(lambda b, x: norm(b, x, training=True), x=(1, 3, 2, 2)))
    assert "bn: batch norm in training mode" in caplog.text


def test_variable_statistics_are_left(caplog):
    def write(b, x, mean):
        t = b.emit(op.nn.batch_norm(x, *map(const, (GAMMA, BETA)), mean, const(VARIANCE), 1, training=False), "t")
        return [b.emit(relax.TupleGetItem(t, 0), "bn")]

    with caplog.at_level("DEBUG", "qcompile.passes"):
        check_unchanged(decompose_batch_norm, module(write, x=(1, 3, 2, 2), mean=(3,)))
    assert "bn: batch norm with statistics that are not constant" in caplog.text
