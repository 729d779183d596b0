"""What layers and casts cost, in the table."""

from __future__ import annotations

import onnx
import pytest

import qcompile as qc
from qcompile.analyze.analyze import analyze
from qcompile.analyze.costs import fit_casts
from qcompile.assign.totals import totals, uniform_formats
from qcompile.calibrate import random_data
from qcompile.runtime.features import host_name
from qcompile.simulate.simulate import simulate
from qcompile.simulate.timing import CastTime
from tests.building import cnn


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """By whether their seconds were measured."""
    path = tmp_path_factory.mktemp("costs") / "model.onnx"
    onnx.save(cnn(), path)
    imported = qc.import_onnx(path)
    feeds = list(random_data(imported.inputs, 2))
    plan = qc.plan_uniform(imported, qc.calibrate(imported, feeds), "int8")
    options = {"simulation": simulate(imported, plan), "accumulate": False, "tuning_records": "none"}
    return {wanted: analyze(imported, plan, feeds, measure_seconds=wanted, **options) for wanted in (True, False)}


def test_measured_seconds(tables):
    table = tables[True]
    assert all(entry.measured for group in table.groups for entry in group.entries.values())
    assert table.device == host_name() and table.rest_seconds > 0
    for name, uniform in table.uniform.items():
        whole = totals(table, uniform_formats(table, name))
        assert (uniform.seconds, uniform.bytes) == (whole.seconds, whole.bytes)
    assert table.uniform["fp32"].loss == 0 and table.uniform["int8"].loss is None


def test_predicted_seconds(tables):
    table = tables[False]
    assert not any(entry.measured for group in table.groups for entry in group.entries.values())
    assert table.device == "" and all(uniform.seconds is None for uniform in table.uniform.values())
    assert [g.name for g in table.groups] == [g.name for g in tables[True].groups]
    assert all(group.entries["fp32"].seconds > 0 for group in table.groups if group.entries["fp32"].bytes)


def test_another_machine_is_predicted_by_the_same_losses(tmp_path, tables):
    onnx.save(cnn(), tmp_path / "model.onnx")
    imported = qc.import_onnx(tmp_path / "model.onnx")
    feeds = list(random_data(imported.inputs, 2))
    plan = qc.plan_uniform(imported, qc.calibrate(imported, feeds), "int8")
    table = analyze(imported, plan, feeds, "cortex-a76", accumulate=False, tuning_records="none")
    assert table.target == "cortex-a76" and table.device == ""
    assert not any(entry.measured for group in table.groups for entry in group.entries.values())
    for group, native in zip(table.groups, tables[False].groups, strict=True):
        assert group.entries["int8"].alone == native.entries["int8"].alone


def test_casts_are_fitted_by_a_line():
    sizes = (100, 1000, 10_000, 100_000)
    bandwidth, overhead = fit_casts([CastTime("int8", n, 2e-6 + n * 5 / 1e11) for n in sizes])
    assert bandwidth == pytest.approx(1e11, rel=1e-3) and overhead == pytest.approx(2e-6, rel=1e-3)
    assert fit_casts([CastTime("int8", n, max(n * 5 / 1e11 - 2e-7, 1e-9)) for n in sizes])[1] == 0  # never below 0
    assert fit_casts([CastTime("int8", 10, 1e-6)]) is None
