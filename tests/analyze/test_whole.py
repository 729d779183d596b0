"""Whole configurations, sample by sample."""

from __future__ import annotations

import os
import signal

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.analyze.data import evaluation_data
from qcompile.analyze.detect import choose_metric
from qcompile.analyze.run import executor_of
from qcompile.analyze.whole import measure_configurations
from qcompile.calibrate import random_data
from qcompile.simulate.simulate import simulate
from qcompile.simulate.simulation import Simulation
from tests.building import cnn


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(model, simulation, samples with labels)."""
    path = tmp_path_factory.mktemp("whole") / "model.onnx"
    onnx.save(cnn(), path)
    imported = qc.import_onnx(path)
    feeds = list(random_data(imported.inputs, 6))
    simulation = simulate(imported, qc.plan_uniform(imported, qc.calibrate(imported, feeds), "int8"))
    data = [{**feed, "labels": np.array([i % 5])} for i, feed in enumerate(feeds)]
    return imported, simulation, list(evaluation_data(data, imported.inputs).samples())


def test_each_sample_has_its_sums(made):
    model, simulation, samples = made
    layers = simulation.layers
    configurations = [dict.fromkeys(layers, "int8"), {layers[1]: "int8"}, {}]
    mse, top1 = (choose_metric(model, name) for name in ("mse", "top1"))
    errors, hits = measure_configurations(simulation, configurations, samples, [mse, top1])
    assert errors.shape == hits.shape == (4, 6, 2)
    for i, sample in enumerate(samples):
        want = simulation.run(sample.feed)["y"].astype(np.float64)
        for row, formats in enumerate([{}, *configurations]):
            got = simulation.run(sample.feed, formats)["y"]
            np.testing.assert_allclose(errors[row, i], [((got - want) ** 2).sum(), (want**2).sum()], rtol=1e-9)
            assert hits[row, i].tolist() == [float(got.argmax() == sample.labels["labels"].item()), 1]
    assert (errors[[0, 3], :, 0] == 0).all() and (errors[1:3, :, 0] > 0).all()


def test_workers_change_nothing(made):
    model, simulation, samples = made
    configurations, metrics = [dict.fromkeys(simulation.layers, "int8")], [choose_metric(model)]
    (here,) = measure_configurations(simulation, configurations, samples, metrics)
    (there,) = measure_configurations(simulation, configurations, samples, metrics, workers=2)
    np.testing.assert_array_equal(here, there)


def test_no_samples(made):
    model, simulation, _ = made
    with pytest.raises(qc.QCompileError, match="no samples to evaluate on"):
        measure_configurations(simulation, [], [], [choose_metric(model)])


def test_a_worker_that_ends_is_told():
    message = "2 workers: a worker process ended before"
    with pytest.raises(qc.QCompileError, match=message), executor_of(2, None) as workers:
        workers[0].submit(os._exit, 1).result()


def test_programs_are_written_once(made, monkeypatch):
    model, simulation, samples = made
    written = []
    program = Simulation.program
    monkeypatch.setattr(Simulation, "program", lambda *a, **options: written.append(a) or program(*a, **options))
    measure_configurations(simulation, [dict.fromkeys(simulation.layers, "int8")], samples, [choose_metric(model)])
    assert len(written) == 2 < len(samples)


def test_workers_end_by_interrupts():
    """At once and without a word, as Ctrl-C reaches all processes of a terminal."""
    with executor_of(2, None) as (pool, ahead):
        assert pool is not None and ahead == 4
        assert pool.submit(signal.getsignal, signal.SIGINT).result() is signal.SIG_DFL
