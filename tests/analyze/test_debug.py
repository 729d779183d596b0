"""Errors layer by layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from tvm import relax

import qcompile as qc
from qcompile.analyze.debug import debug
from qcompile.calibrate import random_data
from tests.building import cnn
from tests.passes.float_modules import const, module, values
from tests.passes.quantized_modules import model_of

op = relax.op


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


def test_a_plan_with_scales_of_channels_is_of_the_model_as_imported():
    """As the command gets them; its codes are of other numbers than the model's own."""

    def write(b, x):
        size = 10.0 ** np.linspace(-1, 1, 16).reshape(-1, 1, 1, 1)
        first = b.emit(op.nn.conv2d(x, const(values(16, 3, 3, 3) * size), padding=1), "a")
        weight = const(values(4, 16, 1, 1) / size.reshape(1, -1, 1, 1))
        return [b.emit(op.nn.conv2d(b.emit(op.nn.relu(first), "y"), weight), "z")]

    model = model_of(module(write, x=(1, 3, 10, 10)))
    feeds = list(random_data(model.inputs, 12))
    equal, plans = qc.quantize_formats(model, feeds, ("int8",))
    assert plans["int8"].channel_scales
    rows = debug(model, plans["int8"], feeds)
    assert rows == debug(equal, plans["int8"], feeds) and rows[0].sqnr_upto > 30
    tables = [
        qc.analyze(each, plans, feeds, measure_seconds=False, tuning_records="none", probes=1)
        for each in (model, equal)
    ]
    assert tables[0] == tables[1]


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
