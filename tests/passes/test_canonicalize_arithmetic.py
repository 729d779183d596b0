from __future__ import annotations

import math

import numpy as np
import pytest
from tvm import relax

from qcompile.passes.canonicalize_arithmetic import canonicalize_arithmetic
from tests.passes.float_modules import check, check_unchanged, const, module, operators, run, values

op = relax.op
C = values(1, 3, 1, 1, low=0.5, high=2)


def one(write):
    return module(lambda b, x: [b.emit(write(x), "y")], x=(2, 3, 2, 2))


SPELLINGS = {
    "c + x": (lambda x: op.add(const(C), x), lambda x: op.add(x, const(C))),
    "c * x": (lambda x: op.multiply(const(C), x), lambda x: op.multiply(x, const(C))),
    "x - c": (lambda x: op.subtract(x, const(C)), lambda x: op.add(x, const(-C))),
    "x / 8": (lambda x: op.divide(x, const(8.0)), lambda x: op.multiply(x, const(0.125))),
    "min(6, x)": (lambda x: op.minimum(const(6.0), x), lambda x: op.clip(x, -math.inf, 6.0)),
    "max(x, 0)": (lambda x: op.maximum(x, const([[0.0]])), lambda x: op.nn.relu(x)),
    "max(x, -1)": (lambda x: op.maximum(x, const(-1.0)), lambda x: op.clip(x, -1.0, math.inf)),
    "clip to relu": (lambda x: op.clip(x, 0.0, math.inf), lambda x: op.nn.relu(x)),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name):
    before, after = SPELLINGS[name]
    check(canonicalize_arithmetic, one(before), one(after))


LEFT = {
    "x / 3": lambda x: op.divide(x, const(3.0)),
    "x / 0": lambda x: op.divide(x, const(0.0)),
    "c - x": lambda x: op.subtract(const(C), x),
    "c / x": lambda x: op.divide(const(C), x),
    "max(x, c)": lambda x: op.maximum(x, const(C)),
    "clip": lambda x: op.clip(x, -1.0, 1.0),
    "relu": lambda x: op.nn.relu(x),
    "a bound that broadcasts x": lambda x: op.maximum(x, const(np.zeros((1, 2, 3, 2, 2)))),
}


@pytest.mark.parametrize("name", LEFT)
def test_left(name):
    check_unchanged(canonicalize_arithmetic, one(LEFT[name]))


def test_relu_then_minimum_is_one_clip():
    def before(b, x):
        return [b.emit(op.minimum(b.emit(op.nn.relu(x), "r"), const(6.0)), "y")]

    check(
        canonicalize_arithmetic,
        module(before, x=(2, 9)),
        module(lambda b, x: [b.emit(op.clip(x, 0.0, 6.0), "y")], x=(2, 9)),
    )


@pytest.mark.parametrize("inner", [(0, 1), (2, 3), (-2, 0.5)])
@pytest.mark.parametrize("outer", [(0, 1), (0.25, 0.5), (-1, math.inf)])
def test_two_clips_are_one_also_where_they_do_not_overlap(inner, outer):
    def write(b, x):
        return [b.emit(op.clip(b.emit(op.clip(x, *map(float, inner)), "r"), *map(float, outer)), "y")]

    x = np.linspace(-4, 4, 65, dtype="float32")
    result = canonicalize_arithmetic(module(write, x=(65,)))
    assert len(operators(result)) == 1
    np.testing.assert_array_equal(run(result, x)[0], np.clip(np.clip(x, *inner), *outer).astype("float32"))


def test_integers_are_left():
    x = relax.Var("x", relax.TensorType((3,), "int64"))
    from qcompile.graph import MainBuilder

    b = MainBuilder([x])
    y = b.emit(op.subtract(x, relax.const(np.array([1, 2, 3]), "int64")), "y")
    check_unchanged(canonicalize_arithmetic, b.module([y]))
