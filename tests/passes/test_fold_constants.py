from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile import graph
from qcompile.passes.base import array
from qcompile.passes.fold_constants import LARGEST_GROWTH, fold_constants
from tests.passes.float_modules import check_unchanged, const, module, operators, values

op = relax.op
A, B = values(2, 3, low=0.5), values(2, 3, seed=1, low=0.5)
INDEX = relax.const(np.array([1, 0]), "int64")

KNOWN = {
    "add": (lambda: op.add(const(A), const(B)), A + B),
    "reshape": (lambda: op.reshape(const(A), (3, 2)), A.reshape(3, 2)),
    "squeeze to a number": (lambda: op.squeeze(const([[2.0]])), np.float32(2.0)),
    "permute_dims": (lambda: op.permute_dims(const(A)), A.T),
    "broadcast_to": (lambda: op.broadcast_to(const(A), (4, 2, 3)), np.broadcast_to(A, (4, 2, 3))),
    "concat, by TVM": (lambda: op.concat([const(A), const(B)], 1), np.concatenate([A, B], 1)),
    "take, by TVM": (lambda: op.take(const(A), INDEX, 0), A[[1, 0]]),
    "power, by TVM": (lambda: op.power(const(A), const(2.0)), A**2),
    "astype, by TVM": (lambda: op.astype(INDEX, "float32"), np.float32([1, 0])),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known(name):
    call, expected = KNOWN[name]
    result = fold_constants(module(lambda b, x: [b.emit(op.multiply(x, b.emit(call(), "c")), "y")], x=()))
    assert operators(result) == ["multiply"]
    folded = array(graph.read(result).bindings[0][1].args[1])
    assert folded.shape == expected.shape and folded.dtype == np.float32
    np.testing.assert_allclose(folded, expected, rtol=1e-6)


def test_a_chain_of_constants():
    def write(b, x):
        c = b.emit(op.sqrt(b.emit(op.add(const(A), const(1.0)), "a")), "c")
        return [b.emit(op.multiply(x, c), "y")]

    assert operators(fold_constants(module(write, x=(2, 3)))) == ["multiply"]


def test_a_constant_output_keeps_its_operator():
    check_unchanged(fold_constants, module(lambda b, x: [b.emit(op.add(const(A), const(B)), "y")], x=()))


def test_a_large_broadcast_is_left():
    def write(b, x):
        return [b.emit(op.add(x, b.emit(op.broadcast_to(const([1.0]), (LARGEST_GROWTH + 1,)), "c")), "y")]

    check_unchanged(fold_constants, module(write, x=(1,)))
