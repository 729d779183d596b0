"""What layers cost: measured where there are records, else predicted and said to be so."""

from __future__ import annotations

import pytest

import qcompile as qc
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.tune.costs import CLOCK, LoggedCosts
from qcompile.tune.lookup import open_logs
from qcompile.tune.tasks import tasks_of
from tests.building import cnn, plan_of, with_island
from tests.targets.running import AVX2, VNNI
from tests.tune.recorded import convolution, matrix, record, write

LAYER = convolution()


def default(workload, target=VNNI):
    return TEMPLATES[workload.operator].default(workload, target)


def cycles(workload):
    return TEMPLATES[workload.operator].cycles(workload, VNNI, default(workload))


@pytest.fixture
def cost(tmp_path):
    def ask(workload, *records, device=""):
        with open_logs([write(tmp_path / "log.db", *records)]) as logs:
            return LoggedCosts(logs, VNNI, device)(workload)

    return ask


def test_the_least_measured_time(cost):
    found = cost(LAYER, record(LAYER, VNNI, default(LAYER), 9), record(LAYER, VNNI, default(LAYER), 7))
    assert (found.seconds, found.measured, found.basis) == (7e-6, True, "measured on some CPU")


def test_times_of_the_wanted_cpu(cost):
    known = [record(LAYER, VNNI, default(LAYER), us, device=name) for us, name in ((9, "slow"), (7, "fast"))]
    assert cost(LAYER, *known, device="slow").seconds == 9e-6
    assert cost(LAYER, *known, device="fast").seconds == 7e-6


def test_another_batch_is_scaled_and_counts_as_predicted(cost):
    found = cost(convolution(batch=4), record(LAYER, VNNI, default(LAYER), 7))
    assert found.seconds == pytest.approx(28e-6) and not found.measured and "batch 1" in found.basis


def test_the_prior_is_scaled_by_what_was_measured(cost):
    others = [convolution(outputs=n) for n in (128, 256, 512)]
    us = [1e6 * f * cycles(w) / CLOCK for f, w in zip((2, 3, 9), others, strict=True)]
    found = cost(LAYER, *(record(w, VNNI, default(w), t) for w, t in zip(others, us, strict=True)))
    assert not found.measured and found.basis == "predicted, scaled by 3 measured"
    assert found.seconds == pytest.approx(3 * cycles(LAYER) / CLOCK, rel=0.3)  # knobs may be transferred


@pytest.mark.parametrize("other", [convolution(integer=False), convolution(depthwise=True), matrix()])
def test_other_operators_and_formats_say_nothing(cost, other):
    found = cost(LAYER, record(other, VNNI, default(other), 1e6))
    assert found.basis == "predicted" and found.seconds == pytest.approx(cycles(LAYER) / CLOCK)


def test_other_instructions_say_nothing(cost):
    assert cost(LAYER, record(LAYER, AVX2, default(LAYER, AVX2), 1e6)).basis == "predicted"


def test_more_work_costs_more(cost):
    costs = [cost(convolution(outputs=n)).seconds for n in (16, 64, 256)]
    assert costs == sorted(costs) and costs[0] < costs[2]
    assert cost(convolution(integer=False)).seconds > cost(LAYER).seconds


def test_layers_of_a_model_in_each_format(tmp_path):
    model = qc.import_onnx(cnn())
    plans = {"int8": plan_of(model), "fp32": qc.QuantPlan()}
    rows = qc.layer_costs(model, plans, AVX2, tuning_records="none")
    found = {(row.layer, row.format): row for row in rows}
    assert len(found) == len(rows)
    for layer in ("conv0", "depthwise", "pool", "classes"):
        assert {name for row, name in found if row == layer} == {"int8", "fp32"}
    assert not any(row.measured for row in rows) and all(0 < row.seconds < 1 for row in rows)

    task = next(t for t in tasks_of(model, plans["fp32"], AVX2) if "depthwise" in t.layers)
    log = write(tmp_path / "log.db", record(task.workload, AVX2, default(task.workload, AVX2), 77))
    again = {(row.layer, row.format): row for row in qc.layer_costs(model, plans, AVX2, tuning_records=log)}
    assert again["depthwise", "fp32"].measured and again["depthwise", "fp32"].seconds == 77e-6
    assert not again["depthwise", "int8"].measured and again["conv0", "fp32"] == found["conv0", "fp32"]


def test_a_layer_that_stays_float_has_no_integer_cost():
    model = qc.import_onnx(with_island())
    rows = qc.layer_costs(model, {"int8": plan_of(model), "fp32": qc.QuantPlan()}, AVX2, tuning_records="none")
    assert [row.format for row in rows if row.layer == "sum"] == ["fp32"]
