"""``runnable``: a form compiled in this process."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax
from tvm.s_tir.pipeline import default_s_tir_pipeline

from qcompile.compile import _CONFIG, _NEEDLESS, runnable
from qcompile.passes.emit_entry import emit_entry
from qcompile.passes.pipeline import lowering_passes, run_passes
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


@pytest.mark.parametrize("threads", [1, 2])
def test_the_passes_that_are_left_out_change_nothing(threads):
    """Of a convolution, what islands are made of (a division), and threads."""

    def write(b, x):
        c = b.emit(op.nn.conv2d(x, weight(8, 4, 3, 3), padding=(1, 1)), "c")
        return [b.emit(op.divide(b.emit(op.nn.softmax(c, 1), "s"), b.emit(op.exp(c), "e")), "y")]

    target = AVX2.with_threads(threads)
    entry = emit_entry(run_passes(integer_of(module(write, x=(1, 4, 9, 9))), lowering_passes(target)))
    machine = target.tvm_target()
    bound = tvm.tirx.transform.BindTarget(machine.with_host(machine))(entry.module)
    made = []
    for left_out in ((), _NEEDLESS):
        with tvm.transform.PassContext(config=_CONFIG, disabled_pass=list(left_out)):
            made.append(default_s_tir_pipeline()[0](bound))
    assert tvm_ffi.structural_equal(*made)
