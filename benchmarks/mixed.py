"""Mixed precision against what there is without it: uniform formats, the greedy choice, HAWQ's score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import qcompile as qc
from benchmarks.accuracy import evaluation_data
from benchmarks.builds import Builds
from benchmarks.models import BenchModel, Feed, module
from qcompile.analyze.data import EvaluationData
from qcompile.analyze.data import evaluation_data as samples_of
from qcompile.analyze.detect import choose_metric
from qcompile.assign.assignment import plan_of_formats
from qcompile.assign.greedy import greedy, hawq
from qcompile.assign.quantize import quantize_formats
from qcompile.assign.table import SensitivityTable
from qcompile.assign.totals import uniform_formats
from qcompile.bench import Contender, measure
from qcompile.formats import FORMATS
from qcompile.mixed.goal import Drop, Goal
from qcompile.mixed.guard import find_guard
from qcompile.mixed.halves import Halves
from qcompile.mixed.mixed import SAMPLES
from qcompile.report.units import size

CHOICE = tuple(name for name in ("int8", "w4a8", "bf16") if name in FORMATS)
MAX_DROP = Drop(0.5, percent=True)
PROBES = 2  # of HAWQ's score, disturbances a group
CHOSEN = "chosen"
HEADERS = ["model", "plan", "us", "size", "metric, held-back half", "value", "drop", "loss", "formats", "beaten by"]


@dataclass(frozen=True, slots=True)
class _Data:
    """model: at the batch that one sample has. samples: with labels. guard: None for that of the task."""

    model: qc.Model
    samples: EvaluationData
    calibration: list[Feed]
    guard: Callable[..., float] | None


def mixed(model: BenchModel, builds: Builds, seconds: float) -> dict[str, Any]:
    """Each plan's latency, size, and accuracy on the half of the data that no choice was made by."""
    data = _data(model)
    halves = Halves(data.samples)
    builds.tell(f"{model.name}: calibrating")
    scaled, plans = quantize_formats(data.model, data.calibration, CHOICE)
    builds.tell(f"{model.name}: analyzing")
    table = qc.analyze(scaled, plans, halves.search(SAMPLES), accumulate=False, probes=PROBES)
    builds.tell(f"{model.name}: searching")
    found = qc.plan_mixed(
        scaled, plans, data.samples, Goal(MAX_DROP), guard=data.guard, table=table, tuning_records="default"
    )
    chosen = found.assignment.totals
    candidates: dict[str, Mapping[str, str]] = {name: uniform_formats(table, name) for name in ("fp32", *CHOICE)}
    candidates |= {name: each.formats for name, each in _rivals(table, chosen.seconds).items()}
    candidates[CHOSEN] = found.assignment.formats
    artifacts = {}
    for name, formats in candidates.items():
        builds.tell(f"{model.name}: building {name}")
        artifacts[name] = qc.build(
            data.model, plan_of_formats(found.table, formats), tuning_records=builds.tuning_records
        )
    builds.tell(f"{model.name}: measuring latency")
    feed = data.calibration[0]
    contenders = {name: Contender("qcompile", name, artifact.path, 1, feed) for name, artifact in artifacts.items()}
    latencies = measure(list(contenders.values()), seconds)
    guard, metric = find_guard(data.guard, data.model, halves.first()), choose_metric(data.model, table.metric)
    rows, losses, reference = {}, {}, []
    for name, artifact in artifacts.items():  # fp32 is the first
        builds.tell(f"{model.name}: accuracy of {name}")
        outputs = _outputs(artifact, halves.held())
        reference = reference or outputs
        pairs = list(zip(reference, outputs, halves.held().samples(), strict=True))
        rows[name] = np.stack([guard.metric.measure(a, b, sample.labels) for a, b, sample in pairs])
        losses[name] = metric.finish(sum(metric.measure(a, b, sample.labels) for a, b, sample in pairs))
    values = {
        name: {
            "median_us": 1e6 * latencies[contenders[name]].median,
            "min_us": 1e6 * latencies[contenders[name]].minimum,
            "bytes": artifacts[name].manifest.weights.bytes,
            "value": guard.value(rows[name]),
            "drop": guard.drop(rows[name], rows["fp32"]),
            "loss": losses[name],
            "formats": _counts(candidates[name], table),
        }
        for name in artifacts
    }
    return {
        "model": model.name,
        "metric": guard.name,
        "loss": metric.name,
        "samples": len(rows[CHOSEN]),
        "interval": [found.held.low, found.held.high],
        "met": found.met,
        "plans": values,
        "beaten_by": {name: [other for other in values if _beats(values[other], values[name])] for name in values},
        "over_int8": values[CHOSEN]["median_us"] / values["int8"]["median_us"],
    }


def _data(model: BenchModel) -> _Data:
    feeds, truth = evaluation_data(model)
    assert model.folder is not None
    if "sts_score" not in truth:
        count = len(next(iter(feeds.values())))
        labels = {name: rows for name, rows in truth.items() if rows.shape[:1] == (count,) and rows.dtype.kind in "iu"}
        imported = qc.import_onnx(model.onnx)
        rows = [{name: all_[i : i + 1] for name, all_ in {**feeds, **labels}.items()} for i in range(count)]
        return _Data(imported, samples_of(rows, imported.inputs), model.calibration, None)
    metrics = module(model.folder.parent / "metrics.py")  # a sample is a pair of sentences, one behind the other

    def spearman(outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> float:
        (embeddings,) = outputs.values()
        return float(metrics.spearman((embeddings[:, 0] * embeddings[:, 1]).sum(1), labels["score"][:, 0]))

    shapes = {name: (2, *rows.shape[1:]) for name, rows in feeds.items()}
    imported = qc.import_onnx(model.onnx, shapes)
    scores = np.repeat(truth["sts_score"], 2)
    rows = [
        {**{name: all_[i : i + 2] for name, all_ in feeds.items()}, "score": scores[i : i + 2]}
        for i in range(0, len(scores), 2)
    ]
    pairs = zip(model.calibration[::2], model.calibration[1::2], strict=False)
    calibration = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in pairs]
    return _Data(imported, samples_of(rows, imported.inputs), calibration, spearman)


def _rivals(table: SensitivityTable, seconds: float) -> dict[str, Any]:
    """What the simpler methods choose within the chosen plan's latency."""
    found = {}
    for name, choose in (("greedy", greedy), ("hawq", hawq)):
        try:
            found[name] = choose(table, max_seconds=seconds * (1 + 1e-9))
        except qc.QCompileError:
            continue  # it ends outside the budget
    return found


def _outputs(artifact: qc.Artifact, data: EvaluationData) -> list[dict[str, np.ndarray]]:
    runner = qc.load(artifact.path)
    return [{name: values.copy() for name, values in runner.run(sample.feed).items()} for sample in data.samples()]


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a plan is more accurate, and faster or smaller without being slower; a percent is no difference.

    Accuracy is judged by the loss: a metric that counts a few hundred answers tells no such plans apart.
    """
    if one["loss"] >= 0.99 * other["loss"]:
        return False
    faster = one["median_us"] < 0.99 * other["median_us"]
    return faster or (one["bytes"] < 0.99 * other["bytes"] and one["median_us"] <= 1.01 * other["median_us"])


def _counts(formats: Mapping[str, str], table: SensitivityTable) -> str:
    chosen = list(formats.values())
    return ", ".join(f"{chosen.count(row.name)} {row.name}" for row in table.formats if row.name in chosen)


def table_rows(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row a plan, fastest first."""
    rows = []
    for result in results:
        for name, plan in sorted(result["plans"].items(), key=lambda item: item[1]["median_us"]):
            rows.append(
                [
                    result["model"],
                    name + (" (met)" if name == CHOSEN and result["met"] else " (NOT met)" if name == CHOSEN else ""),
                    f"{plan['median_us']:.1f}",
                    size(plan["bytes"]),
                    f"{result['metric']}, {result['samples']} samples",
                    f"{plan['value']:.4g}",
                    f"{plan['drop']:.4f}",
                    f"{plan['loss']:.2e} {result['loss']}",
                    plan["formats"],
                    ", ".join(result["beaten_by"][name]) or "none",
                ]
            )
    return rows
