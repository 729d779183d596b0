"""A mask of -1e4, as exporters write it, must not take the codes of the scores that it is added to."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

import qcompile as qc
from tests.passes.float_modules import const, module, weight
from tests.passes.quantized_modules import model_of

op = relax.op
TOKENS, FEATURES, HEADS = 12, 32, 4
CAUSAL = np.where(np.tril(np.ones((TOKENS, TOKENS))), 0, -1e4)


def heads(b, x, name, axes):
    y = b.emit(op.matmul(x, weight(FEATURES, FEATURES, seed=len(name))), name)
    split = b.emit(op.reshape(y, (1, TOKENS, HEADS, FEATURES // HEADS)), f"{name}.split")
    return b.emit(op.permute_dims(split, axes), f"{name}.heads")


def attention(b, x, mask=None):
    """Scores of two activations; the mask is a constant, or made of an input that says which tokens are there."""
    q, k, v = heads(b, x, "q", [0, 2, 1, 3]), heads(b, x, "key", [0, 2, 3, 1]), heads(b, x, "value", [0, 2, 1, 3])
    scores = b.emit(op.multiply(b.emit(op.matmul(q, k), "products"), const(np.array(0.5))), "scores")
    if mask is None:
        masked = b.emit(op.add(scores, const(CAUSAL)), "masked")
    else:
        absent = b.emit(op.subtract(const(np.array(1.0)), mask), "absent")
        far = b.emit(op.reshape(b.emit(op.multiply(absent, const(np.array(-1e4))), "far"), (1, 1, 1, TOKENS)), "wide")
        masked = b.emit(op.add(scores, far), "masked")
    p = b.emit(op.nn.softmax(masked, -1), "p")
    c = b.emit(op.permute_dims(b.emit(op.matmul(p, v), "c"), [0, 2, 1, 3]), "c.tokens")
    return [b.emit(op.matmul(b.emit(op.reshape(c, (1, TOKENS, FEATURES)), "joined"), weight(FEATURES, 16)), "y")]


def scores_of_a_layer(b, x):
    """A layer with weights makes the scores, and one reads the softmax: all of it could be in codes."""
    scores = b.emit(op.matmul(x, weight(FEATURES, TOKENS)), "scores")
    masked = b.emit(op.add(scores, const(CAUSAL)), "masked")
    p = b.emit(op.nn.softmax(masked, -1), "p")
    return [b.emit(op.matmul(p, weight(TOKENS, 16, seed=4)), "y")]


def data(masked, count=8):
    random = np.random.default_rng(0)
    for _ in range(count):
        feed = {"x": random.standard_normal((1, TOKENS, FEATURES)).astype(np.float32)}
        if masked:
            feed["mask"] = (np.arange(TOKENS) < random.integers(4, TOKENS + 1)).astype(np.float32)[None]
        yield feed


@pytest.mark.parametrize(
    ("write", "inputs"),
    [
        (attention, {"x": (1, TOKENS, FEATURES)}),
        (attention, {"x": (1, TOKENS, FEATURES), "mask": (1, TOKENS)}),
        (scores_of_a_layer, {"x": (1, TOKENS, FEATURES)}),
    ],
)
def test_int8_is_close_to_float_behind_a_mask(write, inputs):
    model = model_of(module(write, **inputs))
    feeds = list(data("mask" in inputs))
    plan = qc.quantize(model, feeds)
    assert plan.layers["y"].format == "int8"
    floating, integer = (qc.load(qc.build(model, p, tuning_records="none").path) for p in (None, plan))
    wanted, got = (np.array([runner.run(feed)["y"].copy() for feed in feeds]) for runner in (floating, integer))
    assert np.linalg.norm(got - wanted) < 0.05 * np.linalg.norm(wanted)


def test_why_a_softmax_of_masked_scores_is_float():
    model = model_of(module(scores_of_a_layer, x=(1, TOKENS, FEATURES)))
    plan = qc.plan_uniform(model, qc.calibrate(model, list(data(False))))
    assert plan.layers["p"].format == "fp32"
    assert plan.layers["p"].why == "codes of masked would be 39 apart, too coarse for a softmax"
