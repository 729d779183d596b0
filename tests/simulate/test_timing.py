"""Times of layers, from the kernels of a simulation. What they are is not asserted, but what they are of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.calibrate import random_data
from qcompile.simulate import timing
from qcompile.simulate.simulate import simulate
from tests.building import cnn


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(simulation, a sample)."""
    path = tmp_path_factory.mktemp("timing") / "model.onnx"
    onnx.save(cnn(), path)
    imported = qc.import_onnx(path)
    feeds = list(random_data(imported.inputs, 2))
    return simulate(imported, qc.plan_uniform(imported, qc.calibrate(imported, feeds), "int8")), feeds[0]


@pytest.mark.parametrize("format", ["fp32", "int8"])
def test_every_call_belongs_to_one_part(made, monkeypatch, format):
    simulation, _ = made
    monkeypatch.setattr(simulation, "bound", lambda rows: rows)
    parts = timing._parts(simulation, format)
    rows = simulation.uniform_program(format).rows
    np.testing.assert_array_equal(np.concatenate([part.run for part in parts]), rows)
    casts = [part for part in parts if isinstance(part.owner, int)]
    assert all(len(part.run) == 1 for part in casts)
    assert {simulation.kernels.calls[part.owner].op for part in casts} == (
        {"quantize", "dequantize"} if format == "int8" else set()
    )
    assert {part.owner for part in parts if isinstance(part.owner, str)} == set(simulation.layers)


def test_times_of_layers_casts_and_the_rest(made, monkeypatch):
    simulation, feed = made
    monkeypatch.setattr(timing, "ROUNDS", 2)
    times = timing.time_layers(simulation, feed, seconds=0.0)
    assert set(times.layers) == {(layer, f) for layer in simulation.layers for f in ("fp32", "int8")}
    assert all(seconds >= 0 for seconds in times.layers.values()) and times.rest > 0
    assert sum(times.layers.values()) > 0
    assert {(cast.format, cast.elements) for cast in times.casts if cast.elements == feed["x"].size} == {
        ("int8", feed["x"].size)
    }
    assert len(times.casts) > len(simulation.layers)
