from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

import qcompile as qc
from qcompile import graph
from qcompile.assign.bias_correction import correct_biases, mean_response
from qcompile.errors import QCompileError
from qcompile.passes.base import array
from qcompile.passes.chain import find_chains
from qcompile.passes.insert_qdq import insert_qdq
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.plan import QuantPlan
from qcompile.reference.interpreter import run as oracle
from tests.passes.float_modules import const, module, run, values
from tests.passes.quantized_modules import model_of, stats_of

op = relax.op
CHANNELS = 8


def depthwise(b, x):
    """Weights of large and small taps: the small ones round badly, and nine a channel do not make up for each other."""
    w = values(CHANNELS, 1, 3, 3, seed=3, low=0.0, high=0.02)
    w[:, 0, 0, 0] = 1.0
    return [b.emit(op.nn.conv2d(x, const(w), padding=(1, 1), groups=CHANNELS), "y")]


def two_layers(b, x):
    y = b.emit(op.nn.relu(depthwise(b, x)[0]), "r")
    return [b.emit(op.nn.conv2d(y, const(values(4, CHANNELS, 1, 1))), "z")]


def calibrated(write):
    model = model_of(module(write, x=(1, CHANNELS, 12, 12)))
    data = [{"x": values(1, CHANNELS, 12, 12, seed=i, low=0.0, high=2.0)} for i in range(8)]
    return model, data, qc.calibrate(model, data)


def mean_error(model, plan, data) -> float:
    """Root mean square, over channels, of the shift of an output's mean."""
    floating, integer = (qc.load(qc.build(model, p).path) for p in (None, plan))
    shifts = []
    for feeds in data:
        wanted, got = (next(iter(runner.run(feeds).values())) for runner in (floating, integer))
        shifts.append((got.astype(np.float64) - wanted).mean(axis=(0, 2, 3)))
    return float(np.sqrt(np.mean(np.square(np.mean(shifts, axis=0)))))


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(4, 7),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    groups=st.sampled_from([1, 2]),
    transposed=st.booleans(),
)
def test_mean_response_is_the_mean_of_the_outputs(size, kernel, stride, padding, groups, transposed):
    """For inputs that are the same at every position of a channel."""
    if padding >= kernel:
        padding = 0

    def write(b, x):
        options = {"strides": stride, "padding": padding, "groups": groups}
        if transposed:
            return [b.emit(op.nn.conv2d_transpose(x, const(values(4, 3, kernel, kernel)), **options), "y")]
        return [b.emit(op.nn.conv2d(x, const(values(6, 4 // groups, kernel, kernel)), **options), "y")]

    mod = module(write, x=(1, 4, size, size + 1))
    (chain,) = find_chains(graph.read(mod))
    mean = np.array([1.0, -2.0, 0.5, 3.0])
    x = np.broadcast_to(mean.reshape(1, 4, 1, 1), (1, 4, size, size + 1)).astype(np.float32)
    (got,) = run(mod, np.ascontiguousarray(x))
    np.testing.assert_allclose(mean_response(chain, array(chain.weight), mean), got.mean((0, 2, 3)), atol=1e-5)


def test_means_come_back():
    model, data, stats = calibrated(two_layers)
    with_it, without = (qc.plan_uniform(model, stats, bias_correction=wanted) for wanted in (True, False))
    assert mean_error(model, with_it, data) < 0.4 * mean_error(model, without, data)
    assert all(not tensor.shift for tensor in without.tensors.values())
    assert len(with_it.tensors["r.bias"].shift) == CHANNELS  # of a layer that had no bias


def test_a_saved_plan_gives_the_same_bits():
    model, data, stats = calibrated(two_layers)
    plan = qc.plan_uniform(model, stats)
    again = QuantPlan.from_json(plan.to_json())
    assert again == plan
    first, second = (qc.load(qc.build(model, p).path).run(data[0])["z"].copy() for p in (plan, again))
    np.testing.assert_array_equal(first, second)


def test_correcting_again_changes_nothing():
    model, _, stats = calibrated(two_layers)
    plan = qc.plan_uniform(model, stats)
    assert correct_biases(model, stats, plan) == plan


def test_without_means_of_channels_nothing_is_corrected(caplog):
    mod = module(depthwise, x=(1, CHANNELS, 12, 12))
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        plan = qc.plan_uniform(model_of(mod), stats_of(mod))
    assert not any(tensor.shift for tensor in plan.tensors.values())
    assert "y: no means of the channels of x" in caplog.text


def test_a_shift_that_does_not_fit():
    model, _, stats = calibrated(depthwise)
    text = qc.plan_uniform(model, stats).to_json()
    head, tail = text.split('"shift": [')
    broken = QuantPlan.from_json(f'{head}"shift": [0.5]{tail[tail.index("]") + 1 :]}')
    with pytest.raises(QCompileError, match="y.bias: the plan's shift of this bias has 1 numbers; give 8 finite"):
        qc.build(model, broken)
    with pytest.raises(QCompileError, match="shift"):
        insert_qdq(broken)(model.module)


@pytest.mark.parametrize("write", [depthwise, two_layers])
def test_weights_under_float_activations(write):
    model, data, stats = calibrated(write)
    plan = qc.plan_uniform(model, stats, "w8", bias_correction=False)
    corrected = correct_biases(model, stats, plan)
    assert corrected == qc.plan_uniform(model, stats, "w8") and correct_biases(model, stats, corrected) == corrected
    assert mean_error(model, corrected, data) < 0.05 * mean_error(model, plan, data)
    assert qc.plan_uniform(model, stats, "fp16") == qc.plan_uniform(model, None, "fp16")


def test_biases_that_are_there_are_moved():
    """One that the model has, and one of a matrix product."""

    def write(b, x):
        y = b.emit(op.add(b.emit(op.matmul(x, const(values(32, 16))), "m"), const(values(16, seed=1))), "y")
        return [b.emit(op.matmul(y, const(values(16, 8, seed=2))), "z")]

    model = model_of(module(write, x=(1, 32)))
    data = [{"x": values(1, 32, seed=i, low=0.0, high=2.0)} for i in range(8)]
    plan = qc.plan_uniform(model, qc.calibrate(model, data), "w4", group_size=8)
    assert {name for name, tensor in plan.tensors.items() if tensor.shift} == {"y.bias", "z.bias"}
    floating, built, form = (
        oracle(m, data[0])["z"]
        for m in (model.module, insert_qdq(plan)(model.module), run_passes(model.module, form_passes(plan)))
    )
    np.testing.assert_allclose(built, form, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(qc.load(qc.build(model, plan).path).run(data[0])["z"], form, rtol=1e-4, atol=1e-5)
    assert 0 < np.abs(built - floating).max() < 1
