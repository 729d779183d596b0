"""The guarded metric: found, named, or a function of the whole data set; and how sure a drop is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.analyze.data import Sample
from qcompile.mixed.guard import find_guard
from qcompile.mixed.interval import paired_interval, unseen_share
from tests.building import cnn
from tests.frontend.onnx_models import model, node, weights


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    path = tmp_path_factory.mktemp("guard") / "model.onnx"
    onnx.save(cnn(), path)
    return qc.import_onnx(path)


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    path = tmp_path_factory.mktemp("guard") / "model.onnx"
    onnx.save(
        model([node("MatMul", "x w", "m"), node("Tanh", "m", "y")], {"x": (1, 6)}, ("y",), {"w": weights(6, 4)}), path
    )
    return qc.import_onnx(path)


def sample(**labels) -> Sample:
    return Sample({}, {name: np.array([value]) for name, value in labels.items()})


def test_found_from_the_model_and_the_labels(classifier, regression):
    assert find_guard(None, classifier, sample(labels=3)).name == "top1"
    assert find_guard(None, classifier, sample(score=3.5)).name == "kl"
    assert find_guard(None, classifier, sample()).name == "kl"
    assert find_guard(None, regression, sample(labels=3)).name == "mse"
    assert find_guard("cosine", classifier, sample(labels=3)).name == "cosine"


def rows_of(guard, outputs, labels) -> np.ndarray:
    return np.stack(
        [
            guard.metric.measure({}, {"y": y[None]}, {"labels": np.array([label])})
            for y, label in zip(outputs, labels, strict=True)
        ]
    )


def test_a_drop_of_top1(classifier):
    guard = find_guard(None, classifier, sample(labels=0))
    labels = [0, 1, 2, 3]
    right, wrong = np.eye(5, dtype=np.float32)[labels], np.eye(5, dtype=np.float32)[[0, 1, 3, 3]]
    base, own = rows_of(guard, right, labels), rows_of(guard, wrong, labels)
    assert guard.value(base) == 1 and guard.value(own) == 0.75
    assert guard.drop(own, base) == 0.25 and guard.drop(base, own) == -0.25


def spread(outputs, labels) -> float:
    """Of the whole data set: no mean over samples gives it."""
    assert outputs["y"].shape[1:] == (1, 5) and outputs["y"].dtype == np.float32
    assert labels["labels"].shape[1:] == (1,) and labels["labels"].dtype.kind == "i"
    return float(np.corrcoef(outputs["y"][:, 0, 0], labels["labels"][:, 0])[0, 1])


def unlike(outputs, labels) -> float:
    return -spread(outputs, labels)


unlike.higher_is_better = False  # type: ignore[attr-defined]


def test_a_function_of_the_data_set(classifier):
    labels = list(range(6))
    perfect = np.zeros((6, 5), np.float32)
    perfect[:, 0] = labels
    noisy = perfect.copy()
    noisy[0, 0] = 5
    for function in (spread, unlike):
        guard = find_guard(function, classifier, sample(labels=0))
        base, own = rows_of(guard, perfect, labels), rows_of(guard, noisy, labels)
        want = 1 - np.corrcoef(noisy[:, 0], labels)[0, 1]
        assert guard.drop(own, base) == pytest.approx(want) and want > 0.1


def test_arguments_with_defaults_are_the_functions_own(classifier):
    def score(outputs, labels, bins=10, *, strict=False):
        return float(bins)

    guard = find_guard(score, classifier, sample(labels=0))
    assert guard.value(rows_of(guard, np.eye(5, dtype=np.float32), [0] * 5)) == 10


def test_labels_of_several_shapes_have_no_data_set(classifier):
    guard = find_guard(spread, classifier, sample(labels=0))
    for labels in ({"labels": np.array([0, 1])}, {}):
        with pytest.raises(qc.QCompileError, match=r"'labels' is \(1,\) in one sample and (\(2,\)|missing) in another"):
            guard.metric.measure({}, {"y": np.zeros((1, 5), np.float32)}, labels)


@pytest.mark.parametrize("name", ["top1", "perplexity"])
def test_labels_that_a_metric_needs(classifier, name):
    with pytest.raises(qc.QCompileError, match="the metric needs 1 labels a run of the model, and there are: none"):
        find_guard(name, classifier, sample())
    with pytest.raises(qc.QCompileError, match="label 5, and the model has 5 classes, from 0"):
        find_guard(name, classifier, sample(labels=5))


def test_no_number_is_no_drop_to_expect(classifier):
    guard = find_guard(lambda outputs, labels: float("nan"), classifier, sample(labels=0))
    rows = rows_of(guard, np.eye(5, dtype=np.float32), [0] * 5)
    assert guard.expected_drop(rows, rows) == float("inf")


def test_a_function_by_its_name(classifier, tmp_path, monkeypatch):
    (tmp_path / "own_scores.py").write_text("def most(outputs, labels):\n    return float(outputs['y'].max())\n")
    monkeypatch.syspath_prepend(tmp_path)
    guard = find_guard("own_scores:most", classifier, sample(labels=0))
    assert guard.name == "most" and guard.value(rows_of(guard, np.eye(5, dtype=np.float32), [0] * 5)) == 1


def test_the_interval_is_paired_and_repeatable(classifier):
    guard = find_guard("top1", classifier, sample(labels=0))
    rng = np.random.default_rng(1)
    base = np.stack([rng.random(200) < 0.6, np.ones(200)], axis=1).astype(np.float64)
    own = base.copy()
    own[rng.choice(200, 10, replace=False), 0] = 0
    low, high = paired_interval(guard, own, base)
    drop = guard.drop(own, base)
    assert low <= drop <= high and (low, high) == paired_interval(guard, own, base)
    # Samples that both sides get wrong say nothing of the difference: unpaired, 0.6 of 200 would give +- 0.1.
    assert high - low < 0.08
    assert paired_interval(guard, base, base) == (0, 0)


def test_what_did_not_happen_may_yet():
    """Changes of this share are missed by all samples in one case of twenty."""
    share = unseen_share(400)
    assert 2.9 < 400 * share < 3.1
    assert (1 - share) ** 400 == pytest.approx(0.05)


def test_draws_without_a_number_do_not_count(classifier):
    """With three samples, one draw in nine has only one label: there is no correlation with that."""
    guard = find_guard(spread, classifier, sample(labels=0))
    outputs = np.zeros((3, 5), np.float32)
    outputs[:, 0] = [0, 1, 2]
    rows = rows_of(guard, outputs, [0, 1, 2])
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = paired_interval(guard, rows + [1e-3, *[0] * 5], rows)
    assert np.isfinite([low, high]).all()


def test_the_interval_covers_the_truth(classifier):
    """Of drawn data sets whose true drop is known, some 95 % of intervals hold it: neither far fewer nor all."""
    guard = find_guard("top1", classifier, sample(labels=0))
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        base = np.stack([rng.random(300) < 0.8, np.ones(300)], axis=1).astype(np.float64)
        own = base.copy()
        own[rng.random(300) < 0.05, 0] = 0
        low, high = paired_interval(guard, own, base, resamples=200)
        inside += low <= 0.8 * 0.05 <= high
    assert 180 <= inside <= 199
