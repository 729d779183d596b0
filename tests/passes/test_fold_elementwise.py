from __future__ import annotations

import logging

import numpy as np
import pytest
from tvm import relax

from qcompile import ops
from qcompile.passes.fold_elementwise import fold_elementwise
from qcompile.passes.quantized import dequantize, quantize
from tests.passes.float_modules import const, module, weight
from tests.passes.quantized_modules import assert_within_a_step, integer_of, kinds, plan_of, specs_of

op = relax.op


def of_two(combine, shapes=((2, 4, 6, 6), (2, 4, 6, 6)), activation=None):
    """Two max-pooled convolutions (so that neither takes the sum), combined."""

    def write(b, x, z):
        a, c = (
            b.emit(op.nn.max_pool2d(b.emit(op.nn.conv2d(t, weight(5, 4, 1, 1, seed=i)), f"conv{i}")), f"pool{i}")
            for i, t in enumerate((x, z))
        )
        y = b.emit(combine(a, c), "y")
        if activation:
            y = b.emit(activation(y), "activated")
        return [b.emit(op.nn.conv2d(y, weight(3, 5, 1, 1)), "wants codes")]

    return module(write, x=shapes[0], z=shapes[1])


@pytest.mark.parametrize("combine", [op.add, op.subtract, op.multiply])
@pytest.mark.parametrize("z", [(2, 4, 6, 6), (2, 4, 1, 1), (1, 4, 6, 6)])
def test_two_tensors(combine, z):
    mod = of_two(combine, ((2, 4, 6, 6), z))
    plan = plan_of(mod)
    spec = specs_of(integer_of(mod, plan))[-2]
    assert isinstance(spec, ops.Binary) and spec.kind == combine.__name__
    assert_within_a_step(mod, plan, ["y"])


def test_two_tensors_and_an_activation():
    mod = of_two(op.add, activation=op.nn.relu)
    plan = plan_of(mod)
    assert specs_of(integer_of(mod, plan))[-2].epilogue.clip == (0, np.inf)
    assert_within_a_step(mod, plan, ["activated"])


@pytest.mark.parametrize("combine", [op.add, op.multiply])
def test_a_tensor_and_a_constant(combine):
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(5, 4, 1, 1)), "c")
        y = b.emit(combine(c, weight(1, 1, 6, 6)), "y")
        return [b.emit(op.nn.conv2d(y, weight(3, 5, 1, 1)), "wants codes")]

    mod = module(write, x=(2, 4, 6, 6))
    plan = plan_of(mod)
    assert kinds(integer_of(mod, plan)) == ["quantize", "CONV2D", "BINARY", "CONV2D"]
    assert_within_a_step(mod, plan, ["y"])


FUNCTIONS = {
    "sigmoid": lambda b, x: op.sigmoid(x),
    "tanh": lambda b, x: op.tanh(x),
    "leakyrelu": lambda b, x: op.nn.leakyrelu(x, 0.1),
    "gelu": lambda b, x: op.nn.gelu(x),
    "silu": lambda b, x: op.multiply(x, b.emit(op.sigmoid(x), "s")),
    "clip": lambda b, x: op.multiply(
        b.emit(op.multiply(x, b.emit(op.clip(b.emit(op.add(x, const(3)), "a"), 0, 6), "h")), "m"), const(1 / 6)
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_tables(name):
    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(5, 4, 1, 1)), "c")
        y = b.emit(FUNCTIONS[name](b, c), "y")
        return [b.emit(op.nn.conv2d(y, weight(3, 5, 1, 1)), "wants codes")]

    mod = module(write, x=(2, 4, 6, 6))
    plan = plan_of(mod)
    result = integer_of(mod, plan)
    assert kinds(result) == ["quantize", "CONV2D", "LOOKUP", "CONV2D"]
    assert name.removeprefix("si")[-3:] in specs_of(result)[1].function or name == "silu"
    assert_within_a_step(mod, plan, ["y"])


def decoded(b, x, q, name):
    return b.emit(dequantize(b.emit(quantize(x, q), f"{name}.q"), q), f"{name}.dq")


def concat_of(q, r, out):
    def write(b, x, z):
        y = b.emit(op.concat([decoded(b, x, q, "x"), decoded(b, z, r, "z")], 1), "y")
        return [b.emit(quantize(y, out), "y.q") if out else y]

    return module(write, x=(2, 3, 4, 4), z=(2, 5, 4, 4))


Q, R, S = ops.Affine(2**-6, 77), ops.Affine(3 * 2**-7, 12), ops.Affine(2**-5, 100)


def test_concat_of_different_codes():
    result = fold_elementwise()(concat_of(Q, R, S))
    assert specs_of(result) == [ops.Concat(1, (Q, R), S)]


def test_concat_to_float_is_refused(caplog):
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        result = fold_elementwise()(concat_of(Q, R, None))
    assert "concat" in kinds(result) and "its result is float32" in caplog.text


def test_a_float_operand_is_refused(caplog):
    def write(b, x, z):
        return [b.emit(quantize(b.emit(op.add(decoded(b, x, Q, "x"), z), "y"), S), "y.q")]

    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        result = fold_elementwise()(module(write, x=(2, 3), z=(2, 3)))
    assert "add" in kinds(result) and "reads a float32 tensor" in caplog.text
