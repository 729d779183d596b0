"""The report as values for machines."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from qcompile.assign.assignment import assign
from qcompile.assign.pareto import pareto
from qcompile.assign.table import Uniform
from qcompile.assign.totals import totals, uniform_formats
from qcompile.report.values import measured_share, report_values
from tests.report.pages import ODD, odd_table, with_checks


@pytest.fixture(scope="module")
def values():
    table = with_checks()
    return report_values(table, assign(table, max_loss=0.0011), pareto(table, points=3, sizes=0))


def test_they_are_json(values):
    assert json.loads(json.dumps(values, allow_nan=False)) == json.loads(json.dumps(values))


def test_groups_and_plan(values):
    first = values["groups"][0]
    assert first["name"] == ODD and first["layers"] == [ODD, "tail"] and first["tie"] == f"tail adds {ODD}"
    assert first["entries"]["int8"] == {
        "alone": 1e-3,
        "seconds": 2e-6,
        "bytes": 100,
        "upto": 2e-3,
        "measured": True,
        "scores": {"sqnr": 40.0},
    }
    assert first["why"] and values["groups"][2]["missing"] == {"w4a8": "too <small>"}
    chosen = {group["name"]: group["format"] for group in values["groups"]}
    plan = values["plan"]
    assert plan["assigned"] and plan["budgets"] == {"loss": 0.0011} and plan["objective"] == "latency"
    assert plan["loss"] == pytest.approx(sum(g["entries"][chosen[g["name"]]]["alone"] for g in values["groups"]))
    assert [row["name"] for row in values["uniform"]] == values["formats"] == ["fp32", "int8", "w4a8"]
    assert values["uniform"][1]["measured"] == {"loss": 0.0012, "seconds": 9e-6, "bytes": 300}


def test_sums_are_not_shown_as_measured():
    whole = totals(odd_table(), uniform_formats(odd_table(), "int8")).seconds
    table = odd_table(uniform={"int8": Uniform(0.1, whole, 300)})
    assert report_values(table, None, [])["uniform"][1]["measured"] == {"loss": 0.1, "seconds": None, "bytes": 300}


def test_graph(values):
    assert {"name": "in", "group": None} in values["layers"] and {"name": "tail", "group": ODD} in values["layers"]
    edges = {(edge["source"], edge["reader"]): edge["casts"] for edge in values["edges"]}
    assert edges["tail", "last"] == [] and edges["in", ODD][0]["result"] == "int8"


def test_checks_of_plans_formats_and_first_groups(values):
    by_name = {check["name"]: check for check in values["checks"]}
    assert (by_name["assigned"]["kind"], by_name["assigned"]["formats"]["c"]) == ("checked", "w4a8")
    assert (by_name["assigned"]["predicted"], by_name["assigned"]["measured"]) == (0.002, 0.0031)
    assert by_name["all int8"]["predicted"] == pytest.approx(1e-3 + 1e-5 + 5e-4)  # a pair's extra among them
    assert by_name["first 2 in int8"]["predicted"] == pytest.approx(1e-3 + 1e-5)
    assert by_name["first 2 in int8"]["measured"] == 2e-5 and by_name["first 2 in int8"]["format"] == "int8"
    assert "first 1 in w4a8" not in by_name and "all fp32" not in by_name


def test_losses_beyond_numbers():
    table = odd_table()
    endless = {name: dataclasses.replace(e, upto=math.inf) for name, e in table.groups[0].entries.items()}
    table = odd_table(
        groups=(dataclasses.replace(table.groups[0], entries=endless), *table.groups[1:]),
        uniform={"int8": Uniform(math.nan)},
    )
    values = report_values(table, None, [])
    json.dumps(values, allow_nan=False)
    assert values["groups"][0]["entries"]["int8"]["upto"] is None and values["uniform"][1]["measured"]["loss"] is None
    assert {check["name"] for check in values["checks"]} == {"first 2 in int8", "first 3 in int8"}


def test_share_of_measured_times():
    table = odd_table()
    assert measured_share(table) == pytest.approx((3 * 8 + 3 * 2) / (3 * 8 + 3 * 2 + 2 * 1.5))
    assert measured_share(odd_table(groups=(), casts=(), sources={})) == 0
