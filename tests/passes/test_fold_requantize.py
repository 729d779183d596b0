from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile import graph, ops
from qcompile.ops import Affine
from qcompile.passes.fold_requantize import fold_requantize
from qcompile.passes.quantized import dequantize, quantize
from qcompile.reference.interpreter import run
from tests.passes.float_modules import module, values
from tests.passes.quantized_modules import kinds, specs_of

Q, R = Affine(2**-6, 77), Affine(3 * 2**-7, 12)


def twice(first, second):
    def write(b, x):
        d = b.emit(dequantize(b.emit(quantize(x, first), "x.q"), first), "x.dq")
        return [b.emit(quantize(d, second), "y.q")]

    return module(write, x=(2, 3, 4))


def test_equal_parameters_cancel():
    after = fold_requantize()(twice(Q, Q))
    assert kinds(after) == ["quantize"] and graph.read(after).outputs[0].name == "x.q"


def test_unequal_ones_are_one_requantize():
    before = twice(Q, R)
    after = fold_requantize({"y": "node"})(before)
    relax.analysis.well_formed(after)
    assert kinds(after) == ["quantize", "REQUANTIZE"] and specs_of(after) == [ops.Requantize(Q, R)]
    function = next(f for g, f in after.functions_items() if g.name_hint != "main")
    assert ops.layer_of(function) == "node"
    feeds = {"x": values(2, 3, 4, low=-3, high=5)}
    expected, actual = (next(iter(run(m, feeds).values())).astype(int) for m in (before, after))
    assert np.abs(expected - actual).max() <= 1


def test_codes_of_another_type_are_unequal():
    after = fold_requantize()(twice(Affine(0.02, 77), Affine(2**-6, -51, "int8")))
    assert kinds(after) == ["quantize", "REQUANTIZE"]


def test_others_still_read_the_real_numbers():
    def write(b, x):
        d = b.emit(dequantize(b.emit(quantize(x, Q), "x.q"), Q), "x.dq")
        return [b.emit(quantize(d, Q), "y.q"), b.emit(relax.op.exp(d), "e")]

    assert kinds(fold_requantize()(module(write, x=(2, 3)))) == ["quantize", "dequantize", "exp"]


def test_a_quantize_of_something_else_stays():
    before = module(lambda b, x: [b.emit(quantize(x, Q), "x.q")], x=(2, 3))
    assert kinds(fold_requantize()(before)) == ["quantize"]
