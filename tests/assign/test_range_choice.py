from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

import qcompile as qc
from qcompile import graph
from qcompile.assign.range_choice import narrow_ranges
from qcompile.calibrate.layer_inputs import layer_inputs
from qcompile.passes.chain import find_chains
from tests.passes.float_modules import const, module, values
from tests.passes.quantized_modules import model_of

op = relax.op
FEATURES = 16
STEPS = {"equalize": False, "rounding": False, "bias_correction": False}


def layer(of_first: float):
    """The first feature is ten times as large as the others; how much it counts."""
    w = values(FEATURES, 4)
    w[0] = of_first
    return lambda b, x: [b.emit(op.matmul(x, const(w)), "y")]


def rows(count=8):
    for i in range(count):
        x = np.random.default_rng(i).uniform(-1, 1, (1, 64, FEATURES)).astype(np.float32)
        x[..., 0] *= 10
        yield {"x": x}


def narrowed(write):
    model = model_of(module(write, x=(1, 64, FEATURES)))
    data = list(rows())
    stats = qc.calibrate(model, data)
    inputs = layer_inputs(find_chains(graph.read(model.module)), lambda feed: feed, data, len(data))
    return stats, narrow_ranges(model, stats, inputs, qc.plan_uniform(model, stats))


def test_what_no_layer_looks_at_may_be_clipped():
    stats, after = narrowed(layer(0.0))
    assert after.records["x"].max == pytest.approx(stats.records["x"].max / 2)
    assert after.records["x"].min == pytest.approx(stats.records["x"].min / 2)


def test_what_counts_stays():
    stats, after = narrowed(layer(1.0))
    assert after == stats


def test_less_error_than_the_whole_range():
    model = model_of(module(layer(0.0), x=(1, 64, FEATURES)))
    data = list(rows())
    errors = []
    for ranges in ("minmax", "error"):
        plan = qc.quantize(model, data, steps=qc.Steps(ranges=ranges, **STEPS))
        assert plan.method == ranges
        floating, integer = (qc.load(qc.build(model, p, tuning_records="none").path) for p in (None, plan))
        errors.append(sum(float(np.square(integer.run(f)["y"] - floating.run(f)["y"]).sum()) for f in data))
    assert errors[1] < 0.5 * errors[0]
