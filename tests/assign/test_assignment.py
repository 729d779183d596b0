"""Assignments with their reasons, what is said of unreachable budgets, and the plans that come of them."""

from __future__ import annotations

import dataclasses
import re

import pytest

import qcompile as qc
from qcompile.assign.assignment import assign, plan_of_formats, to_plan
from qcompile.assign.table import Entry, Group
from qcompile.assign.totals import totals, uniform_formats
from qcompile.assign.words import amount, share
from qcompile.errors import QCompileError
from tests.assign.tables import made_up, of_model
from tests.building import cnn, samples


def test_default_objectives():
    table = made_up(4)
    assert assign(table, max_loss=0.1).objective == "latency"
    assert assign(table, max_loss=0.1, max_bytes=10**6).objective == "accuracy"
    assert assign(table).formats == {group.name: "fp32" for group in table.groups}
    with pytest.raises(QCompileError, match="did you mean 'latency'"):
        assign(table, objective="latancy")


def test_the_least_budget_that_the_error_tells_is_enough():
    table = made_up(8, 4, seed=2)
    for option, unit in (("max_seconds", 1e-6), ("max_bytes", 1024)):
        with pytest.raises(QCompileError, match="no assignment has .*best reachable") as error:
            assign(table, **{option: 1e-6 if option == "max_seconds" else 200})
        told = float(re.search(r"best reachable: ([\d.]+)", str(error.value))[1])
        assert assign(table, **{option: told * unit}).gap is not None
    assert "latency of at most 1 us" in str(pytest.raises(QCompileError, assign, table, max_seconds=1e-6).value)


def test_budgets_that_contradict_each_other():
    table = made_up(8, 2, seed=2)
    fast = totals(table, uniform_formats(table, "int8"))
    with pytest.raises(QCompileError, match="with the others kept, loss of at most 0 KL .* or latency of at most"):
        assign(table, max_loss=0.0, max_seconds=fast.seconds * 1.05)


def one_group(entries, **rest):
    return dataclasses.replace(made_up(1, 3), groups=(Group("g", ("g",), entries, **rest),), casts=(), pairs=())


def why_of(table, **budgets):
    return assign(table, **budgets).why["g"]


def test_reasons():
    fast = {"fp32": Entry(0, 40e-6, 4096), "int8": Entry(0.0004, 9e-6, 1024)}
    assert why_of(one_group(fast), max_seconds=2e-5) == "saves 31 us of 40 us for 0.0004 KL"
    assert why_of(one_group(fast), max_loss=0.001) == "saves 31 us of 40 us for 0.0004 KL (40 % of the budget)"
    assert why_of(one_group(fast), max_bytes=2000) == "saves 3 KB of 4 KB for 0.0004 KL"
    assert why_of(one_group(fast), max_loss=0.0001) == "int8 would cost 0.0004 KL (4 times the budget), for 31 us"
    slow = {"fp32": Entry(0, 40e-6, 4096), "int8": Entry(0.0004, 43e-6, 1024)}
    assert why_of(one_group(slow), max_loss=1) == "int8 would be 3 us slower"
    missing = {"int8": "computes in int64"}
    assert why_of(one_group({"fp32": fast["fp32"]}, missing=missing)) == "no other format (int8: computes in int64)"
    three = {**fast, "bf16": Entry(0.0001, 20e-6, 2048)}
    assert why_of(one_group(three), max_loss=0.0002) == (
        "saves 20 us of 40 us for 0.0001 KL (50 % of the budget); "
        "int8 would cost 0.0003 KL more (150 % of the budget), for 11 us"
    )


def test_reasons_of_tied_layers_say_so():
    entries = {"fp32": Entry(0, 4e-6, 40), "int8": Entry(0.1, 1e-6, 10)}
    table = dataclasses.replace(
        made_up(1, 2), groups=(Group("a", ("a", "b"), entries, "b adds a"),), casts=(), pairs=()
    )
    assignment = assign(table, max_loss=1.0)
    assert assignment.why["b"].endswith(" (one format for 2 layers: b adds a)") and len(assignment.why) == 2


def test_casts_are_in_the_reasons():
    table = made_up(1, 2, skip=0)  # the model's input is float32
    assignment = assign(table, max_loss=0.0)
    assert "layer0" in assignment.why and assignment.totals.cast_seconds == 0


def test_amounts():
    table = made_up(1)
    assert amount(table, "seconds", 3.14e-5) == "31 us" and amount(table, "seconds", 2.5) == "2.5 s"
    assert amount(table, "bytes", 3 << 20) == "3 MB" and amount(table, "loss", 0.012345) == "0.012 KL"
    assert amount(table, "seconds", 3.14159e-5, up=True) == "31.42 us"
    assert share(1, 8) == "12 % of" and share(3, 1) == "3 times"


def test_a_plan_of_a_model(tmp_path):
    model = qc.import_onnx(cnn())
    uniform = qc.plan_uniform(model, qc.calibrate(model, samples(model)))
    table = of_model(model, uniform)
    assert [group.layers for group in table.groups] == [("r0", "a", "p"), ("y",)]
    everything = plan_of_formats(table, uniform_formats(table, "int8"))
    assert {n: x.format for n, x in everything.layers.items()} == {n: x.format for n, x in uniform.layers.items()}
    assert dict(everything.tensors) == dict(uniform.tensors)
    assignment = assign(table, max_seconds=0.8 * totals(table, uniform_formats(table, "fp32")).seconds)
    plan = to_plan(assignment, table)
    assert {plan.layers[name].format for name in ("r0", "a", "p", "y")} == {"int8", "fp32"}
    assert plan.layers["a"].why == assignment.why["a"]
    artifact = qc.build(model, plan, target="x86-avx2", out=tmp_path / "out")
    built = {layer.name: layer.format for layer in artifact.manifest.layers}
    assert built["conv0"] == assignment.formats["r0"] and built["classes"] == assignment.formats["y"]


def test_a_table_without_scales():
    with pytest.raises(QCompileError, match="no plan in int8 to take from"):
        plan_of_formats(made_up(2, 2, skip=0), {"layer0": "int8", "layer1": "fp32"})
    plan_of_formats(made_up(1, 2, skip=0), {"layer0": "fp32"})  # needs none


def test_public_names():
    assert qc.assign is assign and qc.to_plan is to_plan and callable(qc.pareto)
    assert isinstance(qc.assign(made_up(2)), qc.Assignment)
