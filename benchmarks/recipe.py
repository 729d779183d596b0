"""What each step towards accurate int8 buys: accuracy, and distance to the float model, with steps added one by one."""

from __future__ import annotations

from typing import Any

import numpy as np

import qcompile as qc
from benchmarks.accuracy import HIGHER, evaluation_data, measured, metric_of
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
PROBABILITY = 1e-9  # the least that has a logarithm here


def recipe(model: BenchModel, builds: Builds) -> dict[str, Any]:
    """The metric in float32, and in int8 with ever more steps; the last are the defaults. See ``_distance`` as well."""
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
        distances[column] = _distance(outputs[0], wanted[0], name == "top-1")
    return {"model": model.name, "metric": name, "better": better, "values": values, "distances": distances}


def _distance(outputs: np.ndarray, wanted: np.ndarray, probabilities: bool) -> float:
    """The squared error of the first output, of probabilities of their logarithms, over the variance of the float
    model's; the geometric mean over samples, so that no odd one decides.
    """
    if probabilities:
        outputs, wanted = (np.log(np.maximum(x, PROBABILITY)) for x in (outputs, wanted))
    by_sample = np.square(outputs - wanted).reshape(len(wanted), -1).mean(axis=1) / wanted.var()
    return float(np.exp(np.log(np.maximum(by_sample, np.finfo(np.float64).tiny)).mean()))


def distance_row(result: dict[str, Any]) -> list[str]:
    return [result["model"], *(f"{result['distances'][column]:.2e}" for column in COLUMNS)]


def row(result: dict[str, Any]) -> list[str]:
    percent = result["better"] == HIGHER and result["metric"] != "Spearman"
    values = list(result["values"].values())
    shown = [f"{100 * v:.2f} %" if percent else f"{v:.4f}" for v in values]
    return [result["model"], f"{result['metric']}, {result['better']}", *shown]
