"""Models with a fixed batch: samples that do not fill the last one count like all others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.analyze.analyze import analyze
from qcompile.analyze.data import evaluation_data
from qcompile.calibrate import random_data
from qcompile.mixed.goal import Drop, Goal
from qcompile.mixed.mixed import plan_mixed
from tests.building import cnn
from tests.frontend.onnx_models import model, node, weights

SAMPLES = 10
OPTIONS = {"tuning_records": "none"}


def imported(proto, path):
    onnx.save(proto, path)
    return qc.import_onnx(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a model by batch, plans, arrays of samples with labels)."""
    path = tmp_path_factory.mktemp("batches") / "model.onnx"
    models = {batch: imported(cnn(batch), path) for batch in (1, 4)}
    feeds = list(random_data(models[1].inputs, SAMPLES))
    data = {"x": np.concatenate([feed["x"] for feed in feeds]), "labels": np.arange(SAMPLES) % 5}
    return models, {"int8": qc.plan_uniform(models[1], qc.calibrate(models[1], feeds))}, data


@pytest.mark.parametrize("metric", ["kl", "mse", "top1", "perplexity"])
def test_losses_are_those_of_single_samples(made, metric):
    models, plans, data = made
    one, four = (
        analyze(each, plans, data, metric=metric, measure_seconds=False, **OPTIONS) for each in models.values()
    )
    assert (one.samples, four.samples) == (SAMPLES, 3) and not four.notes
    assert one.sample_count == four.sample_count == SAMPLES
    assert four.baseline == pytest.approx(one.baseline, rel=1e-5)
    for a, b in zip(one.groups, four.groups, strict=True):
        assert b.entries["int8"].alone == pytest.approx(a.entries["int8"].alone, rel=1e-4, abs=1e-9)
        assert b.entries["int8"].upto == pytest.approx(a.entries["int8"].upto, rel=1e-4, abs=1e-9)


def first(reference, changed, labels) -> float:
    assert changed["y"].shape == (4, 5) and labels["labels"].shape == (4,)
    return float(changed["y"][0, 0])


def test_what_a_metric_cannot_take_is_left_out_in_words(made):
    models, plans, data = made
    table = analyze(models[4], plans, data, metric=first, measure_seconds=False, **OPTIONS)
    assert table.samples == 2
    assert table.notes[-1] == (
        "the last 2 of 10 samples are left out: a metric of one's own is called with full batches, 4 samples at a time"
    )


def test_outputs_without_rows(tmp_path):
    nodes = [node("MatMul", "x w", "m"), node("Reshape", "m shape", "y")]
    constants = {"w": weights(8, 8), "shape": np.array([32])}
    flat = imported(model(nodes, {"x": (4, 8)}, constants=constants), tmp_path / "m.onnx")
    data = evaluation_data({"x": np.ones((7, 8), np.float32)}, flat.inputs)
    data.check_rows(flat.outputs, own_metric=False)
    assert len(list(data.samples())) == 1
    assert data.notes == ["the last 3 of 7 samples are left out: output y has no row for each, 4 samples at a time"]
    few = evaluation_data({"x": np.ones((3, 8), np.float32)}, flat.inputs)
    few.check_rows(flat.outputs, own_metric=False)
    with pytest.raises(qc.QCompileError, match="no samples to evaluate on; give at least 4"):
        list(few.samples())


def test_the_half_that_is_held_back(made):
    """Three batches of four, the last of two samples: the first and the last are searched on."""
    models, plans, data = made
    found = plan_mixed(models[4], plans, data, Goal(Drop(1.0)), num_samples=2, **OPTIONS)
    assert found.held.samples == 4
    assert {trial.name for trial in found.trials} >= {"fp32", "int8"}
    right = models[1]
    outputs = qc.load(qc.build(right, tuning_records="none").path)
    hits = [outputs.run({"x": x[None]})["y"].argmax() == label for x, label in zip(*data.values(), strict=True)]
    fp32 = next(trial for trial in found.trials if trial.name == "fp32")
    assert fp32.drop == 0 and found.held.baseline == np.mean(hits[4:8])
    odd = plan_mixed(models[4], plans, {k: v[:6] for k, v in data.items()}, Goal(Drop(1.0)), num_samples=1, **OPTIONS)
    assert odd.held.samples == 2 and odd.held.baseline == np.mean(hits[4:6])
