"""What each step towards accurate int8 buys: accuracy with the steps added one by one."""

from __future__ import annotations

from typing import Any

import qcompile as qc
from benchmarks.accuracy import HIGHER, evaluation_data, measured, metric_of
from benchmarks.builds import Builds
from benchmarks.models import BenchModel

COLUMNS = ("fp32", "minmax", "+ bias correction", "+ ranges (auto)", "+ equalization")
HEADERS = ["model", "metric", *COLUMNS]


def recipe(model: BenchModel, builds: Builds) -> dict[str, Any]:
    """The metric in float32, and in int8 with ever more steps."""
    name, better, metric = metric_of(model)
    feeds, truth = evaluation_data(model)
    builds.tell(f"{model.name}: calibrating")
    imported = qc.import_onnx(model.onnx)
    equal = qc.equalize(imported, model.calibration)
    stats = qc.calibrate(imported, model.calibration, "auto")  # with histograms
    plans = {
        "fp32": None,
        "minmax": qc.plan_uniform(imported, stats, method="minmax", bias_correction=False),
        "+ bias correction": qc.plan_uniform(imported, stats, method="minmax"),
        "+ ranges (auto)": qc.plan_uniform(imported, stats, method="auto"),
        "+ equalization": qc.plan_uniform(equal, qc.calibrate(equal, model.calibration, "auto"), method="auto"),
    }
    values = {}
    for column, plan in plans.items():
        builds.tell(f"{model.name}: accuracy of {column}")
        artifact = qc.build(imported, plan, tuning_records=builds.tuning_records)
        values[column] = metric(measured(artifact, feeds), feeds, truth)
    return {"model": model.name, "metric": name, "better": better, "values": values}


def row(result: dict[str, Any]) -> list[str]:
    percent = result["better"] == HIGHER and result["metric"] != "Spearman"
    values = [result["values"][column] for column in COLUMNS]
    shown = [f"{100 * v:.2f} %" if percent else f"{v:.4f}" for v in values]
    return [result["model"], f"{result['metric']}, {result['better']}", *shown]
