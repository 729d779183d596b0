from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
from tvm import relax

import qcompile as qc
from qcompile import graph
from qcompile.assign.rounding import learn_rounding
from qcompile.calibrate.executor import default_executor
from qcompile.calibrate.layer_inputs import layer_inputs
from qcompile.errors import QCompileError
from qcompile.passes.chain import find_chains
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.plan import QuantPlan
from qcompile.reference.interpreter import run as oracle
from tests.passes.float_modules import module, values, weight
from tests.passes.quantized_modules import model_of

op = relax.op
FEATURES = 64


def perceptron(b, x):
    y = b.emit(op.nn.relu(b.emit(op.matmul(x, weight(FEATURES, 48, seed=1)), "y~")), "y")
    return [b.emit(op.matmul(y, weight(48, 16, seed=2)), "z")]


def convolutions(b, x):
    y = b.emit(op.nn.relu(b.emit(op.nn.conv2d(x, weight(8, 4, 3, 3), padding=1), "y~")), "y")
    y = b.emit(op.nn.conv2d(y, weight(8, 1, 3, 3, seed=2), padding=1, groups=8), "d")
    return [b.emit(op.nn.conv2d(y, weight(4, 8, 1, 1, seed=3)), "z")]


def samples(*shape, count=16):
    """Features that go together, as those of real data do: of the last axis, or of all channels of an image."""
    random = np.random.default_rng(0)
    if len(shape) == 4:
        images = [random.standard_normal((1, 1, *shape[2:])) + 1 for _ in range(count)]
        return [{"x": (x + 0.1 * random.standard_normal(shape)).astype(np.float32)} for x in images]
    mix = random.standard_normal((4, shape[-1]))
    make = [random.standard_normal((*shape[:-1], 4)) @ mix for _ in range(count)]
    return [{"x": (x + 0.1 * random.standard_normal(shape)).astype(np.float32)} for x in make]


def learnt(write, shape, precision="int8", count=16):
    model = model_of(module(write, x=shape))
    data = samples(*shape, count=count)
    run = default_executor(model)
    stats = qc.calibrate(model, data, executor=run)
    plan = qc.plan_uniform(model, stats, precision, group_size=16)
    inputs = layer_inputs(find_chains(graph.read(model.module)), run, data, len(data))
    return model, plan, learn_rounding(model, inputs, plan)


def error(model, plan, data) -> float:
    floating, integer = (qc.load(qc.build(model, p, tuning_records="none").path) for p in (None, plan))
    off = [integer.run(feed)["z"] - floating.run(feed)["z"] for feed in data]
    return float(np.sqrt(np.mean(np.square(off))))


@pytest.mark.parametrize("precision", ["w4a8", "w4", "w8"])
def test_fewer_bits_are_much_closer_to_float(precision):
    model, nearest, plan = learnt(perceptron, (1, 8, FEATURES), precision)
    assert plan.layers["z"].format == precision and all(plan.tensors[f"{name}.weight"].moves for name in "yz")
    assert not any(tensor.moves for tensor in nearest.tensors.values())
    others = samples(1, 8, FEATURES, count=24)[16:]
    assert error(model, plan, others) < 0.6 * error(model, nearest, others)


@pytest.mark.parametrize(
    ("write", "shape", "precision"),
    [(convolutions, (1, 4, 10, 12), "int8"), (perceptron, (1, 8, FEATURES), "w4a8")],
)
def test_a_saved_plan_builds_what_the_oracle_says(write, shape, precision):
    model, _, plan = learnt(write, shape, precision)
    again = QuantPlan.from_json(plan.to_json())
    assert again == plan and any(tensor.moves for tensor in again.tensors.values())
    runner = qc.load(qc.build(model, again, tuning_records="none").path)
    form = run_passes(model.module, form_passes(plan))
    for feed in samples(*shape, count=3):
        np.testing.assert_array_equal(runner.run(feed)["z"], oracle(form, feed)["z"])


def test_learning_again_starts_anew():
    model, nearest, plan = learnt(perceptron, (1, 8, FEATURES), "w4a8")
    assert learn_rounding(model, {}, plan) == learn_rounding(model, {}, nearest)


def test_what_keeps_its_nearest_codes(caplog):
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        model, nearest, plan = learnt(perceptron, (1, 8, FEATURES), count=3)
        assert plan == nearest
        learn_rounding(model, {}, nearest)
    assert "y: too few samples to hold some back" in caplog.text
    assert "y: no rows of x" in caplog.text


def test_less_error_on_samples_held_back_decides(caplog):
    """Three samples on one line teach what is wrong for a fourth that goes everywhere."""
    model = model_of(module(lambda b, x: [b.emit(op.matmul(x, weight(256, 8)), "z")], x=(1, 64, 256)))
    line = values(1, 1, 256)
    data = [{"x": values(1, 64, 1, seed=i) * line} for i in range(3)] + [{"x": values(1, 64, 256, seed=3)}]
    run = default_executor(model)
    plan = qc.plan_uniform(model, qc.calibrate(model, data, executor=run))
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        after = learn_rounding(model, layer_inputs(find_chains(graph.read(model.module)), run, data, 4), plan)
    assert after == plan and "z: on samples held back the nearest codes leave less error" in caplog.text


def test_moves_of_another_weight():
    model, _, plan = learnt(perceptron, (1, 8, FEATURES), "w4a8")
    other = dataclasses.replace(plan.tensors["y.weight"], moves=plan.tensors["z.weight"].moves)
    tensors = {**plan.tensors, "y.weight": other}
    with pytest.raises(QCompileError, match=r"y.weight: the plan's moves of codes do not fit this weight"):
        qc.build(model, dataclasses.replace(plan, tensors=tensors))
