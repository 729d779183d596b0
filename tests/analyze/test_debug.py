"""Errors layer by layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.analyze.debug import debug
from qcompile.calibrate import random_data
from tests.building import cnn


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """(model, plan, samples)."""
    path = tmp_path_factory.mktemp("debug") / "model.onnx"
    onnx.save(cnn(), path)
    imported = qc.import_onnx(path)
    feeds = list(random_data(imported.inputs, 4))
    return imported, qc.plan_uniform(imported, qc.calibrate(imported, feeds), "int8"), feeds


def test_every_integer_layer_worst_first(planned):
    imported, plan, feeds = planned
    rows = debug(imported, plan, feeds)
    assert {row.layer for row in rows} == {name for name, layer in plan.layers.items() if layer.format == "int8"}
    assert [row.sqnr_alone for row in rows] == sorted(row.sqnr_alone for row in rows)
    assert all(15 < row.sqnr_alone < 100 and row.largest_alone > 0 for row in rows)
    first = next(row for row in rows if row.layer == "r0")
    assert first.node == "relu0" or first.node == "conv0"
    assert (first.sqnr_alone, first.largest_alone) == (first.sqnr_upto, first.largest_upto)


def test_a_range_that_is_too_narrow_shows(planned):
    """The layer whose codes reach half as far clips, and is the worst."""
    imported, plan, feeds = planned
    name = "r0"
    narrow = dataclasses.replace(plan.tensors[name], scale=(plan.tensors[name].scale[0] / 2,))
    rows = debug(imported, dataclasses.replace(plan, tensors={**plan.tensors, name: narrow}), feeds)
    assert rows[0].layer == name and rows[0].clipped > 0.01
    before = {row.layer: row.clipped for row in debug(imported, plan, feeds)}
    assert before[name] < 0.001


def test_nothing_to_compare(planned):
    imported, plan, feeds = planned
    with pytest.raises(qc.QCompileError, match="every layer of the plan is fp32"):
        debug(imported, qc.QuantPlan(), feeds)
    with pytest.raises(qc.QCompileError, match="no samples to compare on"):
        debug(imported, plan, [])


def test_outputs_up_to_here_are_those_of_the_build(planned):
    imported, plan, feeds = planned
    runner = qc.load(qc.build(imported, plan, tuning_records="none").path)
    real = qc.load(qc.build(imported, tuning_records="none").path)
    largest = max(np.abs(runner.run(feed)["y"] - real.run(feed)["y"]).max() for feed in feeds)
    (row,) = [row for row in debug(imported, plan, feeds) if row.layer == "y"]
    assert row.largest_upto == pytest.approx(largest)
