"""``qcompile assign`` and ``qcompile pareto`` as their users meet them."""

from __future__ import annotations

import importlib.util
import json

import pytest

import qcompile as qc
from qcompile.cli.budgets import nbytes, seconds
from qcompile.errors import QCompileError
from tests.assign.tables import of_model
from tests.building import cnn, samples


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    model = qc.import_onnx(cnn())
    path = tmp_path_factory.mktemp("table") / "table.json"
    of_model(model, qc.plan_uniform(model, qc.calibrate(model, samples(model)))).save(path)
    return path


def test_a_plan_from_a_table_alone(cli, table, tmp_path):
    code, out, err = cli("assign", table, "--latency-budget", "6us", "-o", tmp_path / "plan.json")
    assert (code, err) == (0, "")
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert any(row.startswith("r0 + 2 fp32 4.0 ? 400 B 0 int8 would cost 0.1 KL, for") for row in rows)
    assert any(row.startswith("y int8 1.0 ? 100 B 0.01 saves 3 us of 4 us for 0.01 KL") for row in rows)
    assert any(row.startswith("all int8 2.") for row in rows) and "least loss within 6.0 us, optimal\n" in out
    plan = qc.QuantPlan.load(tmp_path / "plan.json")
    assert {name: plan.layers[name].format for name in ("r0", "a", "p", "y")} == {
        **dict.fromkeys(("r0", "a", "p"), "fp32"),
        "y": "int8",
    }
    assert plan.layers["y"].why == "saves 3 us of 4 us for 0.01 KL" and set(plan.tensors) == {
        "p",
        "f",
        "y.weight",
        "y.bias",
    }


def test_values_for_machines(cli, table):
    code, out, _ = cli("assign", table, "--max-loss", "0.2", "--json")
    told = json.loads(out)
    assert code == 0 and told["objective"] == "latency" and told["plan"] is None
    assert told["budgets"] == {"loss": 0.2} and told["predicted"]["loss"] == pytest.approx(0.11)
    assert {group["name"]: group["format"] for group in told["groups"]} == {"r0": "int8", "y": "int8"}


def test_greedy(cli, table):
    code, out, _ = cli("assign", table, "--size-budget", "500", "--method", "greedy")
    assert code == 0 and "least loss within 500 B, by greedy" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency-budget", "1us"], "no assignment has latency of at most 1 us (best reachable: 2"),
        (["--latency-budget", "5"], "'5' is no amount; write 5ms, 800us or 1s"),
        (["--size-budget", "2 meters"], "'2 meters' is no amount; write 2MB, 512KB or a number of bytes"),
        (["--method", "hawq", "--max-loss", "1"], "HAWQ's score orders layers but has no unit to limit"),
        (["--method", "hawq", "--latency-budget", "1ms"], "no HAWQ score in int8"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(cli, table, tmp_path, arguments, message):
    code, out, err = cli("assign", table, *arguments, "-o", tmp_path / "plan.json")
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_no_table(cli, tmp_path):
    code, _, err = cli("assign", tmp_path / "none.json")
    assert code == 2 and "No such file" in err
    (tmp_path / "plan.json").write_text(qc.QuantPlan().to_json())
    code, _, err = cli("pareto", tmp_path / "plan.json")
    assert code == 2 and "not a table of sensitivities" in err


def test_front_with_report_and_plans(cli, table, tmp_path):
    html, plans = tmp_path / "front.html", tmp_path / "plans"
    code, out, err = cli("pareto", table, "--report", html, "--plans", plans, "--points", 4, "--sizes", 1)
    assert code == 0 and "all int8" in out and "all fp32" in out and str(html) in err
    rows = [line for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [path.name for path in sorted(plans.iterdir())] == [f"{i:02d}.json" for i in range(len(rows))]
    assert {layer.format for layer in qc.QuantPlan.load(plans / "00.json").layers.values()} == {"int8"}
    page = html.read_text()
    assert page.count("<svg") >= 4 and "src=" not in page and "<script" not in page and "<link" not in page
    told = json.loads(cli("pareto", table, "--points", 4, "--sizes", 1, "--compare", "--json")[1])
    assert [*told["compared"]] == ["greedy"] and len(told["compared"]["greedy"]) == len(rows)
    assert len(told["points"]) == len(rows) and {p["uniform"] for p in told["points"]} >= {"int8", "fp32"}


def test_report_on_a_plan(cli, table, tmp_path):
    html, values = tmp_path / "plan.html", tmp_path / "plan.report.json"
    code, out, err = cli("assign", table, "--max-loss", "0.2", "--report", html)
    assert code == 0 and "least latency within a loss of 0.2 kl" in out and f"report in {html}" in err
    assert "This plan: least latency within a loss of 0.2 kl" in html.read_text()
    assert cli("assign", table, "--max-loss", "0.2", "--report", values)[0] == 0
    told = json.loads(values.read_text())
    assert told["plan"]["assigned"] and [g["format"] for g in told["groups"]] == ["int8", "int8"]
    code, _, err = cli("assign", table, "--report", values, "-o", values)
    assert code == 2 and "two results in one file" in err


def test_reports_need_their_libraries(cli, table, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else real(name))
    monkeypatch.setattr("qcompile.report.page.find_spec", importlib.util.find_spec)
    code, _, err = cli("pareto", table, "--report", tmp_path / "front.html")
    assert code == 2 and "reports need matplotlib; pip install 'qcompile[report]', or name a .json file" in err
    assert not list(tmp_path.iterdir())


def test_amounts():
    assert seconds("5ms") == 0.005 and seconds(" 1.5 S ") == 1.5 and seconds("31us") == pytest.approx(3.1e-5)
    assert nbytes("2MB") == 2 << 20 and nbytes("1e3") == 1000 and nbytes("1.5KiB") == 1536 and nbytes(None) is None
    for text in ("", "ms", "-5ms", "5 m", "1.2.3s"):
        with pytest.raises(QCompileError, match="is no amount"):
            seconds(text)
