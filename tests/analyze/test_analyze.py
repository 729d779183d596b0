"""From a model and samples to a table of sensitivities."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.analyze import measure as measuring
from qcompile.analyze.analyze import analyze
from qcompile.analyze.detect import find_classes
from qcompile.calibrate import random_data
from qcompile.simulate.simulate import simulate
from tests.building import cnn
from tests.frontend.onnx_models import model, node, weights


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(model, plan, simulation, samples with labels)."""
    path = tmp_path_factory.mktemp("analyze") / "model.onnx"
    onnx.save(cnn(), path)
    imported = qc.import_onnx(path)
    feeds = list(random_data(imported.inputs, 6))
    plan = qc.plan_uniform(imported, qc.calibrate(imported, feeds), "int8")
    simulation = simulate(imported, plan)
    data = [{**feed, "labels": np.array([i % 5])} for i, feed in enumerate(feeds)]
    return imported, plan, simulation, data


def run(made, **options):
    imported, plan, simulation, data = made
    options = {"measure_seconds": False, "tuning_records": "none", **options}
    return analyze(imported, plan, data, simulation=simulation, **options)


def entries(table):
    return {group.name: group.entries["int8"] for group in table.groups}


def test_losses_are_those_of_the_simulation(made):
    imported, _, simulation, data = made
    table = run(made, metric="mse")
    together: dict[str, str] = {}
    for group in table.groups:
        alone = dict.fromkeys(group.layers, "int8")
        together |= alone
        for formats, found in ((alone, group.entries["int8"].alone), (together, group.entries["int8"].upto)):
            noise = signal = 0.0
            for sample in data:
                feed = {"x": sample["x"]}
                want, got = (simulation.run(feed, f)["y"].astype(np.float64) for f in ({}, formats))
                noise, signal = noise + ((got - want) ** 2).sum(), signal + (want**2).sum()
            assert found == pytest.approx(noise / signal, rel=1e-9)
    assert table.uniform["int8"].loss == table.groups[-1].entries["int8"].upto
    assert [layer for group in table.groups for layer in group.layers] == list(simulation.layers)


def test_a_classifier_is_measured_by_divergence(made):
    table = run(made)
    assert (table.metric, table.baseline, table.samples) == ("kl", 0.0, 6)
    for entry in entries(table).values():
        assert entry.alone >= 0 and entry.scores["sqnr"] > 10 and 0.9 < entry.scores["cosine"] <= 1


def test_size_and_time(made):
    table = run(made, metric="mse", accumulate=False)
    for group in table.groups:
        float32, int8 = group.entries["fp32"], group.entries["int8"]
        assert float32.alone == 0 and int8.upto is None
        if float32.bytes:
            assert int8.bytes < float32.bytes
    assert sum(g.entries["fp32"].seconds for g in table.groups) > 0
    assert not table.groups[0].entries["int8"].measured


def test_results_do_not_depend_on_workers(made):
    wanted = run(made, metric="top1")
    with ThreadPoolExecutor(1) as pool:
        assert run(made, metric="top1", executor=pool).to_json() == wanted.to_json()
    assert run(made, metric="top1", workers=2).to_json() == wanted.to_json()


def test_an_interrupted_analysis_goes_on(made, tmp_path, monkeypatch):
    wanted, path = run(made, probes=1), tmp_path / "checkpoint"
    measured = []

    def stop(done):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, probes=1, checkpoint=path, progress=stop)
    with path.open("ab") as file:
        file.write(b'{"sample": 3, "dig')  # the machine went down
    original = measuring._sample
    monkeypatch.setattr(measuring, "_sample", lambda *args: measured.append(args[-1]) or original(*args))
    assert run(made, probes=1, checkpoint=path, resume=True).to_json() == wanted.to_json()
    assert len(measured) == 3 and not path.exists()


def test_a_checkpoint_of_another_analysis_is_refused(made, tmp_path):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, metric="mse", checkpoint=tmp_path / "c", progress=stop)
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(qc.QCompileError, match="the checkpoint is of another analysis"):
        run(made, metric="kl", checkpoint=tmp_path / "c", resume=True)
    assert (tmp_path / "c").read_bytes() == before


def largest(reference, changed, labels):
    assert set(labels) == {"labels"}
    return abs(reference["y"] - changed["y"]).max()


def test_own_metric(made):
    table = run(made, metric=largest)
    assert table.metric == "largest" and all(entry.alone > 0 for entry in entries(table).values())


def test_curvature_of_a_linear_model(tmp_path):
    """Of ``y = x w`` and the loss ``|dy|^2 / |y|^2``, ``tr H`` is ``2 |x|^2`` outputs / |y|^2."""
    constants = {"w": weights(8, 16)}
    onnx.save(model([node("MatMul", "x w", "y")], {"x": (4, 8)}, constants=constants), tmp_path / "m.onnx")
    imported = qc.import_onnx(tmp_path / "m.onnx")
    feeds = list(random_data(imported.inputs, 3))
    plan = qc.plan_uniform(imported, qc.calibrate(imported, feeds), "int8")
    (group,) = analyze(imported, plan, feeds, metric="mse", probes=40, tuning_records="none").groups
    x = np.concatenate([feed["x"] for feed in feeds]).astype(np.float64)
    wanted = 2 * (x**2).sum() * 16 / ((x @ constants["w"]) ** 2).sum() / constants["w"].size
    scores = group.entries["int8"].scores
    assert scores["curvature"] == pytest.approx(wanted, rel=0.1)
    scale = np.array(plan.tensors["y.weight"].scale)
    error = ((np.rint(constants["w"] / scale) * scale - constants["w"]) ** 2).sum()
    assert scores["hawq"] == pytest.approx(scores["curvature"] * error, rel=1e-5)


def imported_of(tmp_path, nodes, inputs, constants, dtypes=None):
    onnx.save(model(nodes, inputs, constants=constants, dtypes=dtypes), tmp_path / "m.onnx")
    return qc.import_onnx(tmp_path / "m.onnx")


def test_what_is_a_classifier(tmp_path):
    dense = node("MatMul", "x w", "y")
    softmax = [node("MatMul", "x w", "l"), node("Softmax", "l", "y", axis=-1)]
    lookup = [node("Gather", "t i", "e"), node("MatMul", "e w", "y")]
    found = find_classes(imported_of(tmp_path, [dense], {"x": (2, 8)}, {"w": weights(8, 4)}))
    assert (found.output, found.probabilities) == ("y", False)
    assert find_classes(imported_of(tmp_path, softmax, {"x": (2, 8)}, {"w": weights(8, 4)})).probabilities
    assert find_classes(imported_of(tmp_path, [dense], {"x": (2, 8)}, {"w": weights(8, 8)})) is None  # an autoencoder
    for classes, known in ((12, True), (9, False)):  # as many as the table has rows, or not
        constants = {"t": weights(12, 8), "w": weights(8, classes)}
        assert bool(find_classes(imported_of(tmp_path, lookup, {"i": (1, 6)}, constants, {"i": np.int64}))) == known


def test_labels_are_missing(made):
    imported, plan, simulation, data = made
    bare = [{"x": sample["x"]} for sample in data]
    with pytest.raises(qc.QCompileError, match="the metric needs 1 labels a run of the model, and there are: none"):
        analyze(imported, plan, bare, metric="top1", simulation=simulation, tuning_records="none")
