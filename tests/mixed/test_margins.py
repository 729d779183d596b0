"""The drop to expect, from margins: the same on average as the drop that is counted, with less chance in it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.mixed.guard import find_guard
from qcompile.mixed.margins import expected_drop, measure
from tests.building import cnn
from tests.mixed.test_guard import sample


def drawn(rng, samples, bias=0.0, spread=0.2):
    """(rows of fp32, rows of a changed model): 70 % right, margins of some units, changes of ``spread``."""
    margins = rng.normal(1.0, 2.0, samples)
    changed = margins + rng.normal(bias, spread, samples)
    return tuple(np.stack([m > 0, np.ones(samples), m], axis=1).astype(np.float64) for m in (margins, changed))


@pytest.mark.parametrize("bias", [0.0, -0.1])
def test_the_same_on_average_with_less_chance(bias):
    rng = np.random.default_rng(0)
    counted, expected = [], []
    for _ in range(400):
        base, rows = drawn(rng, 450, bias)
        counted.append((base - rows)[:, 0].mean())
        expected.append(expected_drop(rows, base))
    base, rows = drawn(rng, 2_000_000, bias)
    truth = (base - rows)[:, 0].mean()
    assert np.mean(expected) == pytest.approx(truth, abs=1e-3)
    assert np.std(expected) < 0.8 * np.std(counted)  # half the variance or less: half the data would do


def test_too_few_answers_to_tell():
    base, rows = drawn(np.random.default_rng(0), 10)
    assert expected_drop(rows, base) is None
    assert expected_drop(base, base) is None  # nothing changes: nothing is near tipping over


def test_sure_answers_that_change_much_do_not_count():
    base, rows = drawn(np.random.default_rng(1), 5000)
    sure = np.abs(base[:, 2]) > 3
    wild = rows.copy()
    wild[sure, 2] += np.sign(base[sure, 2]) * 2
    assert expected_drop(wild, base) == pytest.approx(expected_drop(rows, base), abs=2e-3)


def test_a_row_holds_hits_and_margins():
    logits = np.array([[1.0, 3.0, 2.0], [5.0, 1.0, 0.0]], np.float32)
    row = measure("y", False, {}, {"y": logits}, {"labels": np.array([1, 2])})
    np.testing.assert_allclose(row, [1, 2, 1, -5], rtol=1e-6)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    of_probabilities = measure("y", True, {}, {"y": probabilities}, {"labels": np.array([1, 2])})
    np.testing.assert_allclose(of_probabilities, row, rtol=1e-5)


def test_the_guard_of_a_classifier_expects(tmp_path):
    onnx.save(cnn(), tmp_path / "model.onnx")
    guard = find_guard(None, qc.import_onnx(tmp_path / "model.onnx"), sample(labels=0))
    base, rows = drawn(np.random.default_rng(2), 2000)
    assert guard.drop(rows, base) == pytest.approx((base - rows)[:, 0].mean())
    assert guard.expected_drop(rows, base) == expected_drop(rows, base)
    assert guard.expected_drop(rows[:5], base[:5]) == guard.drop(rows[:5], base[:5])
