from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

import qcompile as qc
from qcompile.errors import QCompileError
from qcompile.plan import QuantPlan
from tests.passes.float_modules import const, module, values, weight
from tests.passes.quantized_modules import model_of

op = relax.op
CHANNELS = 16
MAGNITUDES = 10.0 ** np.linspace(-1.5, 1.5, CHANNELS).reshape(-1, 1, 1, 1)


def badly_scaled(b, x):
    """Channels of 0.03 to 30 that the next layer weighs up again, so that all of them count."""
    a = b.emit(op.nn.conv2d(x, const(values(CHANNELS, 3, 3, 3) * MAGNITUDES), padding=1), "a")
    y = b.emit(op.nn.relu(a), "y")
    w = values(CHANNELS, 1, 3, 3, seed=4) / MAGNITUDES
    z = b.emit(op.nn.conv2d(y, const(w), padding=1, groups=CHANNELS), "z")
    return [b.emit(op.nn.conv2d(z, weight(4, CHANNELS, 1, 1)), "out")]


@pytest.fixture(scope="module")
def made():
    model = model_of(module(badly_scaled, x=(1, 3, 10, 10)))
    data = [{"x": values(1, 3, 10, 10, seed=i)} for i in range(6)]
    return model, data


def error(model, plan, data) -> float:
    wanted, got = (qc.load(qc.build(model, p).path).run(data[0])["out"].copy() for p in (None, plan))
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def test_int8_is_much_closer(made):
    model, data = made
    equal = qc.equalize(model, data)
    before, after = (qc.plan_uniform(m, qc.calibrate(m, data)) for m in (model, equal))
    assert set(after.channel_scales) == {"y", "z"} and not before.channel_scales
    assert error(equal, after, data) < 0.25 * error(model, before, data)
    assert qc.equalize(equal, data) is equal


def test_a_saved_plan_scales_the_imported_model(made, tmp_path):
    model, data = made
    equal = qc.equalize(model, data)
    plan = qc.plan_uniform(equal, qc.calibrate(equal, data))
    again = QuantPlan.from_json(plan.to_json())
    assert again == plan
    equal.save(tmp_path / "m")
    models = (equal, model, qc.Model.load(tmp_path / "m"))
    first, *others = (qc.load(qc.build(m, again).path).run(data[0])["out"].copy() for m in models)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_a_plan_of_other_scales(made):
    model, data = made
    equal, plan = qc.equalize(model, data), qc.plan_uniform(model, qc.calibrate(model, data))
    with pytest.raises(QCompileError, match="made for other scales of the model's channels; give the model as it was"):
        qc.build(equal, plan)
    assert qc.build(equal).manifest.layers  # in float32 any scales will do


def test_nothing_is_gained_where_weights_are_codes_already():
    """Weights that came from int8 lose nothing as they are, and would by any other numbers."""

    def write(b, x):
        y = b.emit(op.nn.relu(b.emit(op.nn.conv2d(x, weight(8, 3, 3, 3), padding=1), "a")), "y")
        codes = np.random.default_rng(0).integers(-126, 127, (4, 8, 1, 1))
        codes[:, 0] = 127
        return [b.emit(op.nn.conv2d(y, const(codes / 127)), "z")]

    model = model_of(module(write, x=(1, 3, 10, 10)))
    data = [{"x": values(1, 3, 10, 10, seed=i)} for i in range(4)]
    assert qc.equalize(model, data) is model
