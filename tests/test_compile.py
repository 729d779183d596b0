"""``runnable``: a form compiled in this process."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.compile import runnable
from qcompile.reference import interpreter
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import feeds_of, integer_of
from tests.targets.running import AVX2

op = relax.op


def network(b, x, z):
    c = b.emit(op.nn.conv2d(x, weight(8, 4, 3, 3), padding=(1, 1)), "c/out:0")
    return [b.emit(op.add(c, z), "sum"), c]


def test_feeds_and_results_go_by_onnx_names():
    form = integer_of(module(network, x=(1, 4, 5, 5), z=(1, 8, 5, 5)))
    feeds = feeds_of(form)
    want = interpreter.run(form, feeds)
    got = runnable(form, AVX2)(dict(reversed(feeds.items())))
    assert list(got) == list(want)
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)


def test_a_call_does_not_see_the_one_before():
    """The workspace keeps what earlier calls left in it."""
    form = integer_of(module(network, x=(1, 4, 5, 5), z=(1, 8, 5, 5)))
    run, feeds = runnable(form, AVX2), feeds_of(form)
    first = {name: value.copy() for name, value in run(feeds).items()}
    run({name: -value for name, value in feeds.items()})
    for name, value in run(feeds).items():
        np.testing.assert_array_equal(value, first[name])


def test_a_float_form():
    before = module(network, x=(1, 4, 5, 5), z=(1, 8, 5, 5))
    form, feeds = integer_of(before, precision="fp32"), feeds_of(before)
    got = runnable(form, AVX2)(feeds)
    for name, value in interpreter.run(before, feeds).items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5)
