"""All formats in one analysis: words, positions and products, each as a build has them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.analyze.analyze import analyze
from qcompile.calibrate import random_data
from qcompile.simulate.simulate import simulate
from tests.frontend.onnx_models import model, node, weights

FORMATS = ("int8", "w4a8", "w8", "bf16", "fp16")
CONSTANTS = {
    "t": weights(2048, 32),
    "p": weights(1, 128, 32, seed=1),
    "w": weights(32, 64, seed=2) / 6,
    "v": weights(64, 8, seed=3) / 8,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(model, plans by format, simulation, samples)."""
    nodes = [
        *(node("Gather", "t i", "e"), node("Add", "e p", "x"), node("MatMul", "x w", "m")),
        *(node("Relu", "m", "r"), node("MatMul", "r v", "y")),
    ]
    path = tmp_path_factory.mktemp("formats") / "model.onnx"
    onnx.save(model(nodes, {"i": (1, 128)}, constants=CONSTANTS, dtypes={"i": np.int64}), path)
    imported = qc.import_onnx(path)
    feeds = list(random_data(imported.inputs, 3))
    stats = qc.calibrate(imported, feeds)
    plans = {name: qc.plan_uniform(imported, stats, name) for name in FORMATS}
    return imported, plans, simulate(imported, plans), feeds


@pytest.fixture(scope="module")
def table(made):
    imported, plans, simulation, feeds = made
    return analyze(imported, plans, feeds, metric="mse", probes=1, simulation=simulation)


def test_each_group_in_each_format_that_it_can_have(table):
    words, *products = table.groups
    assert set(words.entries) == {"fp32", "int8", "w4a8", "fp16"} and set(words.missing) == {"w8", "bf16"}
    for group in products:
        assert set(group.entries) == {"fp32", *FORMATS}
        loss, size = (
            {name: getattr(entry, what) for name, entry in group.entries.items()} for what in ("alone", "bytes")
        )
        assert loss["w4a8"] > loss["int8"] > loss["w8"] > loss["fp16"] > 0
        assert loss["w4a8"] > loss["int8"] > loss["bf16"] > loss["fp16"]
        assert size["w4a8"] < size["w8"] < size["fp16"] <= size["bf16"] < size["fp32"]


def test_every_score_is_there(table):
    for group in table.groups:
        for name, entry in group.entries.items():
            if name != "fp32":
                assert entry.measured and entry.seconds > 0
                assert entry.scores["hawq"] > 0 and entry.scores["curvature"] > 0 and entry.scores["sqnr"] > 5


@pytest.mark.parametrize("format", FORMATS)
def test_a_simulation_gives_what_a_build_gives(made, format):
    imported, _, simulation, feeds = made
    formats = {layer: format for layer in simulation.layers if format in simulation.formats(layer)}
    runner = qc.load(qc.build(imported, simulation.plan(formats), tuning_records="none").path)
    for feed in feeds:
        np.testing.assert_array_equal(simulation.run(feed, formats)["y"], runner.run(feed)["y"])
