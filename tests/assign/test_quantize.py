from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tvm import relax

import qcompile as qc
from qcompile.calibrate.executor import default_executor, scaled_executor
from qcompile.scaled import scaled
from tests.passes.float_modules import const, module, values, weight
from tests.passes.quantized_modules import model_of

op = relax.op
CHANNELS = 16
BARE = qc.Steps(equalize=False, ranges="minmax", rounding=False, bias_correction=False)


def uneven(b, x):
    """Channels of very different magnitude, in front of layers that weigh them up again."""
    size = 10.0 ** np.linspace(-1, 1, CHANNELS).reshape(-1, 1, 1, 1)
    y = b.emit(op.nn.relu(b.emit(op.nn.conv2d(x, const(values(CHANNELS, 3, 3, 3) * size), padding=1), "a")), "y")
    z = b.emit(op.nn.conv2d(y, const(values(CHANNELS, 1, 3, 3, seed=4) / size), padding=1, groups=CHANNELS), "d")
    return [b.emit(op.nn.conv2d(z, weight(4, CHANNELS, 1, 1)), "z")]


def images(count=12, first=0):
    """Channels that go together, each image with a mean of its own."""
    for i in range(first, first + count):
        random = np.random.default_rng(i)
        common = random.standard_normal((1, 1, 10, 10)) + random.standard_normal()
        yield {"x": (common + 0.3 * random.standard_normal((1, 3, 10, 10))).astype(np.float32)}


@pytest.fixture(scope="module")
def made():
    model = model_of(module(uneven, x=(1, 3, 10, 10)))
    return model, default_executor(model)


def error(model, plan) -> float:
    floating, integer = (qc.load(qc.build(model, p, tuning_records="none").path) for p in (None, plan))
    wanted, got = (np.array([r.run(feed)["z"].copy() for feed in images(8, 50)]) for r in (floating, integer))
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def test_each_step_leaves_less_error_on_other_data(made):
    model, run = made
    steps = (BARE, replace(BARE, equalize=True), qc.Steps())
    nothing, equal, everything = (qc.quantize(model, list(images()), steps=s, executor=run) for s in steps)
    assert nothing == qc.plan_uniform(model, qc.calibrate(model, images(), executor=run), bias_correction=False)
    assert equal.channel_scales and not any(t.moves or t.shift for t in equal.tensors.values())
    assert any(t.moves for t in everything.tensors.values()) and any(t.shift for t in everything.tensors.values())
    errors = [error(model, plan) for plan in (nothing, equal, everything)]
    assert errors[1] < 0.7 * errors[0] and errors[2] < errors[1]


def test_data_that_can_be_read_once(made):
    model, run = made
    assert qc.quantize(model, images(), executor=run) == qc.quantize(model, list(images()), executor=run)


def test_plans_of_several_formats_are_of_one_model(made):
    model, run = made
    equal, plans = qc.quantize_formats(model, list(images()), ("int8", "w4a8", "w8"), executor=run)
    assert equal.channel_scales and equal.channel_scales == dict(plans["int8"].channel_scales)
    assert plans["int8"] == qc.quantize(model, list(images()), executor=run)
    assert {layer.format for layer in plans["w8"].layers.values()} <= {"w8", "fp32"}
    assert plans["w8"].channel_scales == equal.channel_scales


@pytest.mark.parametrize("precision", ["w4", "w8"])
def test_weights_under_float_activations_take_the_same_steps(made, precision):
    model, run = made
    nearest = qc.quantize(model, None, precision, group_size=16)
    assert nearest == qc.plan_uniform(model, None, precision, group_size=16)
    bare, whole = (
        qc.quantize(model, list(images()), precision, group_size=16, steps=steps, executor=run)
        for steps in (BARE, qc.Steps())
    )
    assert bare == nearest and whole.layers == nearest.layers
    assert any(t.shift for t in whole.tensors.values())
    assert qc.QuantPlan.from_json(whole.to_json()) == whole


def test_formats_without_codes_or_integer_weights_need_no_data(made):
    model, _ = made
    same, plans = qc.quantize_formats(model, None, ("bf16", "fp16", "w8"))
    assert same is model and {plan.layers["z"].format for plan in plans.values()} == {"bf16", "fp16", "w8"}
    with pytest.raises(qc.QCompileError, match="int8 without calibration data; give samples of real inputs"):
        qc.quantize(model, None, "int8")


def test_the_executor_of_the_float_model_does_for_the_equalized_one(made):
    model, run = made
    scales = qc.quantize(model, list(images()), executor=run).channel_scales
    (feed,) = images(1)
    got = {name: value.copy() for name, value in scaled_executor(run, model, scales)(feed).items()}
    for name, value in default_executor(scaled(model, scales))(feed).items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5)
