"""Losses of outputs against those of the float model."""

from __future__ import annotations

import math

import numpy as np
import pytest

import qcompile as qc
from qcompile.analyze.metrics import decibels, make_metric

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((4, 7)).astype(np.float32)


def loss(name, reference, changed, labels=None, probabilities=False):
    metric = make_metric(name, "y", probabilities)
    sums = [metric.measure({"y": reference}, {"y": other}, labels or {}) for other in (changed, reference)]
    return metric.loss(*sums)


def softmax(x):
    e = np.exp(x.astype(np.float64))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", ["kl", "mse", "sqnr", "cosine"])
def test_what_compares_with_fp32_is_zero_for_it(name):
    assert loss(name, LOGITS, LOGITS) == pytest.approx(0, abs=1e-12)
    assert loss(name, LOGITS, LOGITS[::-1]) > 0.01


def test_divergence_of_logits_and_of_probabilities():
    other = LOGITS + RNG.standard_normal(LOGITS.shape).astype(np.float32)
    p, q = softmax(LOGITS), softmax(other)
    wanted = (p * np.log(p / q)).sum(-1).mean()
    assert loss("kl", LOGITS, other) == pytest.approx(wanted)
    assert loss("kl", p.astype(np.float32), q.astype(np.float32), probabilities=True) == pytest.approx(wanted, rel=1e-4)


def test_a_probability_of_zero_has_a_finite_divergence():
    p = np.array([[0.5, 0.5]], np.float32)
    assert 1 < loss("kl", p, np.array([[1, 0]], np.float32), probabilities=True) < 20


def test_relative_squared_error_adds_up_over_samples():
    metric = make_metric("mse", "y", False)
    noisy = LOGITS + np.float32(0.1)
    whole = metric.measure({"y": LOGITS}, {"y": noisy}, {})
    parts = sum(metric.measure({"y": a[None]}, {"y": b[None]}, {}) for a, b in zip(LOGITS, noisy, strict=True))
    np.testing.assert_allclose(whole, parts)
    wanted = ((noisy - LOGITS).astype(np.float64) ** 2).sum() / (LOGITS.astype(np.float64) ** 2).sum()
    assert metric.finish(whole) == pytest.approx(wanted)
    assert decibels(wanted) == pytest.approx(-10 * math.log10(wanted))


def test_accuracy_counts_by_its_decrease():
    labels = {"labels": LOGITS.argmax(-1)}
    worse = LOGITS.copy()
    worse[0] *= -1
    assert loss("top1", LOGITS, worse, labels) == pytest.approx(0.25)


def test_perplexity_counts_by_its_increase_and_skips_padding():
    targets = {"targets": np.array([0, 1, -1, 3])}
    rows = [0, 1, 3]
    p, q = softmax(LOGITS), softmax(2 * LOGITS)
    perplexity = [np.exp(-np.log(x[rows, [0, 1, 3]]).mean()) for x in (q, p)]
    assert loss("perplexity", LOGITS, 2 * LOGITS, targets) == pytest.approx(perplexity[0] - perplexity[1])


def test_labels_that_do_not_fit():
    with pytest.raises(qc.QCompileError, match=r"the metric needs 4 labels a run .* 'labels' int64 \(3,\)"):
        loss("top1", LOGITS, LOGITS, {"labels": np.arange(3)})
    for name in ("top1", "perplexity"):
        with pytest.raises(qc.QCompileError, match="label 7, and the model has 7 classes, from 0; number the classes"):
            loss(name, LOGITS, LOGITS, {"labels": np.array([0, 1, 7, 2])})
    with pytest.raises(qc.QCompileError, match="there are: none"):
        loss("top1", LOGITS, LOGITS)


def largest(reference, changed, labels):
    """A user's metric: the largest difference."""
    return max(abs(reference[name] - changed[name]).max() for name in reference)


def test_own_metrics():
    assert loss(largest, LOGITS, LOGITS + np.float32(0.5)) == pytest.approx(0.5)
    with pytest.raises(qc.QCompileError, match="no such function"):
        make_metric("no.such.module:f", "y", False)
    with pytest.raises(qc.QCompileError, match="unknown metric 'kll'; did you mean 'kl'"):
        make_metric("kll", "y", False)


def test_own_metrics_that_fail():
    def broken(reference, changed, labels):
        return labels["none"]

    with pytest.raises(qc.QCompileError, match=r"broken: KeyError: 'none' \(line \d+ of .*test_metrics.py\)"):
        loss(broken, LOGITS, LOGITS)
    with pytest.raises(qc.QCompileError, match="it gives None, not a number; return a float"):
        loss(lambda *arguments: None, LOGITS, LOGITS)
