"""What each step towards accurate int8 buys: accuracy, and distance to the float model, with steps added one by one."""

from __future__ import annotations

from typing import Any

import qcompile as qc
from benchmarks.accuracy import HIGHER, distance, evaluation_data, measured, metric_of
from benchmarks.builds import Builds
from benchmarks.models import BenchModel
from qcompile.calibrate import default_executor

COLUMNS = {
    "nearest codes": qc.Steps(equalize=False, ranges="minmax", rounding=False, bias_correction=False),
    "+ bias correction": qc.Steps(equalize=False, ranges="minmax", rounding=False),
    "+ equalization": qc.Steps(ranges="minmax", rounding=False),
    "+ learnt rounding": qc.Steps(ranges="minmax"),
    "+ ranges by error": qc.Steps(),
}
HEADERS = ["model", "metric", "fp32", *COLUMNS]
DISTANCE_HEADERS = ["model", *COLUMNS]


def recipe(model: BenchModel, builds: Builds) -> dict[str, Any]:
    """The metric in float32, and in int8 with ever more steps, the last of which are the defaults; how far the outputs
    are from those in float32.
    """
    name, better, metric = metric_of(model)
    feeds, truth = evaluation_data(model)
    imported = qc.import_onnx(model.onnx)
    run = default_executor(imported)
    plans: dict[str, qc.QuantPlan | None] = {"fp32": None}
    for column, steps in COLUMNS.items():
        builds.tell(f"{model.name}: {column}")
        plans[column] = qc.quantize(imported, model.calibration, steps=steps, executor=run)
    values, distances = {}, {}
    for column, plan in plans.items():
        builds.tell(f"{model.name}: accuracy of {column}")
        artifact = qc.build(imported, plan, tuning_records=builds.tuning_records)
        outputs = measured(artifact, feeds)
        if plan is None:
            wanted = outputs
        values[column] = metric(outputs, feeds, truth)
        distances[column] = distance(outputs, wanted)
    return {"model": model.name, "metric": name, "better": better, "values": values, "distances": distances}


def distance_row(result: dict[str, Any]) -> list[str]:
    return [result["model"], *(f"{result['distances'][column]:.2e}" for column in COLUMNS)]


def row(result: dict[str, Any]) -> list[str]:
    percent = result["better"] == HIGHER and result["metric"] != "Spearman"
    values = list(result["values"].values())
    shown = [f"{100 * v:.2f} %" if percent else f"{v:.4f}" for v in values]
    return [result["model"], f"{result['metric']}, {result['better']}", *shown]
