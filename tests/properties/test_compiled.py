"""What is claimed of the compiler: compiled modules equal the oracle, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from tvm import relax

from qcompile import ops
from qcompile.compile import runnable
from qcompile.graph import MainBuilder
from qcompile.ops import Affine, AvgPool2d, Epilogue
from qcompile.reference import arithmetic, interpreter
from qcompile.targets.select import can_run, select_target
from qcompile.targets.target import Target
from qcompile.targets.x86 import ROWS
from tests.properties import cases, graphs
from tests.properties.cases import Case
from tests.properties.graphs import IntegerGraph, composite, module_of

EVERY_TARGET = [*ROWS, *(row.extended(word) for row in ROWS for word, _ in row.optional)]


def assert_equals_oracle(drawn: IntegerGraph, target: Target | None = None) -> None:
    expected = interpreter.run(drawn.module, drawn.feeds)
    got = runnable(drawn.module, target or select_target("x86"))(drawn.feeds)
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert np.array_equal(got[name], value), name


LAYERS = {
    "conv2d": cases.conv2d_case(),
    "conv1d": cases.conv1d_case(),
    "conv_transpose2d": cases.conv_transpose2d_case(),
    "dense": cases.dense_case(),
    "avg_pool2d": cases.avg_pool2d_case(),
    "mean": cases.mean_case(),
    "resize_linear": cases.resize_linear_case(),
    "softmax": cases.softmax_case(),
    "binary": cases.binary_case(),
    "lookup": cases.lookup_case(),
    "requantize": cases.requantize_case(),
    "concat": cases.concat_case(),
    "channel_shuffle": cases.channel_shuffle_case(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(LAYERS[name])
    def check(case):
        assert_equals_oracle(module_of(case))

    check()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs.integer_graphs())
def test_graphs(drawn):
    assert_equals_oracle(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("target", EVERY_TARGET, ids=lambda target: target.name)
def test_many_graphs(target):
    if not can_run(target):
        pytest.skip(f"this CPU cannot run {target.name}")

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(graphs.integer_graphs())
    def check(drawn):
        assert_equals_oracle(drawn, target)

    check()


def test_pixels_of_a_transposed_convolution_are_spread_among_zero_points():
    """A filter of one tap and strides of two need no border, and half of the result is the bias alone."""
    q = Affine(0.05, 128)
    spec = ops.ConvTranspose2d((1, 2), (0, 0, 0, 0), (0, 0), (1, 1), 1, q, Epilogue(out=q))
    x = np.array([[[[217, 163]]]], np.uint8)
    constants = (np.full((1, 1, 1, 1), 3, np.int8), np.zeros(1, np.int32), np.full(1, 0.1, np.float32))
    assert_equals_oracle(module_of(Case(spec, (x, *constants), (1, 1, 1, 3), "uint8")))


def test_a_kernel_reads_what_the_kernel_before_it_wrote():
    """With type-based alias analysis on, LLVM moved the last kernel's loads before the pooling's stores."""
    q, tensor = Affine(0.05, 128), relax.TensorType((2, 1, 5, 1), "uint8")
    x = relax.Var("x", tensor)
    builder = MainBuilder([x])
    moved = builder.emit(relax.op.permute_dims(x, [0, 1, 2, 3]), "moved")
    largest = builder.emit(relax.op.nn.max_pool2d(moved, (1, 1)), "largest")
    spec = AvgPool2d((2, 1), (1, 1), (0, 0, 1, 0), (1, 1), False, False, q, Epilogue(out=q))
    multiplier = relax.const(arithmetic.pool_multipliers(q, 2, q))
    function = composite(spec, [tensor, multiplier.ty], tensor)
    pooled = builder.call(function, [largest, multiplier], "pooled", ops.AvgPool2d.op)
    feeds = {"x": np.random.default_rng(0).integers(0, 256, (2, 1, 5, 1)).astype(np.uint8)}
    assert_equals_oracle(IntegerGraph(builder.module([pooled]), feeds))
