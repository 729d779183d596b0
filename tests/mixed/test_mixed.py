"""plan_mixed on a small model, whole: simulation, sensitivities, search, the half that was held back."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest

import qcompile as qc
from qcompile.analyze.data import evaluation_data
from qcompile.assign.totals import totals, uniform_formats
from qcompile.mixed.goal import Drop, Goal
from qcompile.mixed.halves import Halves
from qcompile.mixed.mixed import halves_and_guard, plan_mixed
from qcompile.report.mixed import verdict
from tests.building import cnn, samples


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(model, plans, data): labels are what the float model says, so every change of a class is a drop."""
    path = tmp_path_factory.mktemp("mixed") / "model.onnx"
    onnx.save(cnn(), path)
    model = qc.import_onnx(path)
    feeds = samples(model, 40)
    runner = qc.load(qc.build(model, tuning_records="none").path)
    data = [{**feed, "labels": np.array([runner.run(feed)["y"].argmax()])} for feed in feeds]
    stats = qc.calibrate(model, feeds[:8])
    return model, {"int8": qc.plan_uniform(model, stats)}, data


def mixed(made, goal, **options):
    model, plans, data = made
    return plan_mixed(model, plans, data, goal, num_samples=6, tuning_records="none", **options)


def test_halves_share_no_sample(made):
    model, _, data = made
    halves = Halves(evaluation_data(data, model.inputs))
    search, held, first = (
        [s.digest() for s in part.samples()] for part in (halves.search(), halves.held(), halves.search(3))
    )
    assert len(search) == len(held) == 20 and not {*search} & {*held} and first == search[:3]
    with pytest.raises(qc.QCompileError, match="one sample cannot be both"):
        Halves(evaluation_data(data[:1], model.inputs)).first()


class Reader:
    """As ONNX Runtime's, which can be read once."""

    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def test_data_that_can_be_read_once(made):
    model, _, data = made
    for once in (iter(data), Reader(data)):
        halves, guard = halves_and_guard(model, once, Goal(Drop(1.0)), None)
        assert guard.name == "top1"
        assert [len(list(part.samples())) for part in (halves.search(), halves.held(), halves.search())] == [20] * 3


def test_a_drop_that_is_kept(made):
    kept = []
    found = mixed(made, Goal(Drop(20, percent=True)), keep=kept.append)
    assert found.met and found.held.metric == "top1" and found.held.baseline == 1.0 and found.held.samples == 20
    assert found.held.drop == found.held.baseline - found.held.value <= 0.2
    assert found.held.low <= found.held.drop <= found.held.high
    assert [check.name for check in found.table.checks][:2] == ["fp32", "int8"]
    assert found.table.checks[1].measured > 0 == found.table.checks[0].measured
    assert kept[-1] == found.table and not kept[0].checks
    assert all(layer.why for layer in found.plan.layers.values())


def test_the_plan_is_the_one_that_was_measured(made):
    """The build of the plan has, on the samples held back, the accuracy that was reported of it."""
    model, _, data = made
    found = mixed(made, Goal(Drop(20, percent=True)))
    runner = qc.load(qc.build(model, found.plan, tuning_records="none").path)
    right = [runner.run({"x": row["x"]})["y"].argmax() == row["labels"][0] for row in data[1::2]]
    assert np.mean(right) == found.held.value


def test_a_table_is_used_again(made):
    model, _, data = made
    first = mixed(made, Goal(Drop(20, percent=True)))
    again = plan_mixed(model, {}, data, Goal(Drop(20, percent=True)), table=first.table, tuning_records="none")
    assert again.assignment.formats == first.assignment.formats and again.held == first.held
    with pytest.raises(qc.QCompileError, match="its times are of .*; analyze for this target"):
        plan_mixed(model, {}, data, Goal(Drop(1)), "x86-avx2", table=first.table)


def test_what_a_table_has_seen_of_the_half_held_back_is_told(made):
    model, plans, data = made
    held = [mixed(made, Goal(Drop(1.0))).held]
    for part in (data[:10], data[::2]):
        table = qc.analyze(model, plans, part, accumulate=False, measure_seconds=False, tuning_records="none")
        found = mixed(made, Goal(Drop(1.0)), table=table)
        held.append(found.held)
        assert ("sensitivities are of 5 of the 20 samples held back" in str(verdict(found))) == (part == data[:10])
    unknown = mixed(made, Goal(Drop(1.0)), table=replace(table, seen=()))
    assert "does not say which samples" in str(verdict(unknown))
    assert [each.seen for each in (*held, unknown.held)] == [0, 5, 0, None]


def test_a_machine_that_cannot_run_here(made):
    """Losses are those of any machine, times are predicted; nobody can measure a build."""
    found = mixed(made, Goal(Drop(20, percent=True), max_seconds=1.0), target="cortex-a76", latency=lambda plan: None)
    assert found.met and found.table.target == "cortex-a76" and found.seconds is None
    latency = dict(verdict(found))["latency"]
    assert re.fullmatch(r"[\d.]+ us, predicted: a build could not be timed here", latency)


def test_what_cannot_work_is_told_before_the_analysis(made):
    def fail(what, samples):
        raise AssertionError(what)

    with pytest.raises(qc.QCompileError, match="0.5% of that is nothing"):
        mixed(made, Goal(Drop(0.5, percent=True)), guard="kl", progress=fail)


def test_a_metric_without_a_value_for_fp32(made):
    def nothing(outputs, labels):
        return float("nan")

    with pytest.raises(qc.QCompileError, match="nothing: it is nan for fp32 itself"):
        mixed(made, Goal(Drop(0.5)), guard=nothing)


def test_samples_are_counted_not_runs(made):
    """Of a model that takes 2 at a time."""
    _, _, data = made
    model = qc.import_onnx(cnn(batch=2))
    plans = {"int8": qc.plan_uniform(model, qc.calibrate(model, [{"x": row["x"]} for row in data[:8]]))}
    found = plan_mixed(model, plans, data, Goal(Drop(1.0)), num_samples=2, tuning_records="none")
    assert found.held.metric == "top1" and found.held.samples == 20


def test_a_budget_is_kept_by_the_build_not_by_the_prediction(made):
    """What is built takes half as long again as predicted: the search aims lower until the build keeps the budget."""
    asked = []
    first = mixed(made, Goal(max_seconds=1.0)).table
    seconds = {"fp32": 4e-5, "int8": 1e-5}  # in place of those of a machine
    groups = [
        replace(group, entries={name: replace(entry, seconds=seconds[name]) for name, entry in group.entries.items()})
        for group in first.groups
    ]
    table = replace(first, groups=tuple(groups), rest_seconds=0.0, cast_overhead=0.0)
    fp32 = totals(table, uniform_formats(table, "fp32")).seconds

    def latency(plan):
        count = sum(layer.codes for layer in plan.layers.values())
        asked.append(count)
        return fp32 * (1.5 if count == 0 else 0.7)

    found = mixed(made, Goal(max_seconds=fp32), latency=latency, table=table)
    assert found.met and found.seconds <= fp32 and asked[0] == 0 < asked[-1]
    slow = mixed(made, Goal(max_seconds=fp32), latency=lambda plan: 9.0, table=table)
    assert slow.unmet == (f"its build takes 9e+06 us, the budget is {1e6 * fp32:.4g} us",) and not slow.met
    both = mixed(made, Goal(Drop(1.0), max_seconds=fp32), latency=lambda plan: 9.0, table=table)
    assert set(both.missed) == {"latency"} and ("max drop", "1 kept") in verdict(both)


def test_a_drop_beyond_the_limit_on_the_other_half_is_told(made):
    """The samples held back are those that int8 gets wrong, as far as there are any: searching did not show it."""
    model, plans, data = made
    simulation = qc.simulate(model, plans)
    int8 = dict.fromkeys(simulation.layers, "int8")

    def changes(row) -> float:
        feed = {"x": row["x"]}
        return float(np.abs(simulation.run(feed)["y"] - simulation.run(feed, int8)["y"]).max())

    ordered = sorted(data, key=changes)
    interleaved = [row for pair in zip(ordered[:20], ordered[20:], strict=True) for row in pair]

    def worst(reference, changed, labels):
        return float(np.abs(reference["y"] - changed["y"]).max())

    limit = changes(ordered[19])  # int8 changes no sample of the first half by more, and all of the other one
    goal = Goal(Drop(limit))
    found = plan_mixed(model, plans, interleaved, goal, guard=worst, num_samples=6, tuning_records="none")
    assert found.held.metric == "worst" and found.chosen.drop <= limit < found.held.drop
    assert found.unmet == (f"it drops by more than {goal.max_drop} of worst on the half that was held back",)
