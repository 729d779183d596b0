"""Accuracy on the bench folder's evaluation data, by its own metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import qcompile as qc
from benchmarks.builds import Builds
from benchmarks.models import EXAMPLE, BenchModel, Feed, module, one_by_one

Run = Callable[[Feed], list[np.ndarray]]  # one sample's inputs -> the model's outputs, in its order
Metric = Callable[[list[np.ndarray], Feed, dict[str, np.ndarray]], float]  # outputs of all samples, feeds, ground truth

HIGHER, LOWER = "higher is better", "lower is better"


def accuracy(model: BenchModel, builds: Builds) -> dict[str, Any]:
    """The metric of ONNX Runtime and of ours, float and int8."""
    assert model.folder is not None
    name, better, metric = metric_of(model)
    feeds, truth = evaluation_data(model)
    runs = {
        "onnxruntime fp32": _onnxruntime(model.onnx),
        "onnxruntime int8": _onnxruntime(builds.onnxruntime_int8(model, "int8")),
        "qcompile fp32": _qcompile(builds.artifact(model, "fp32")),
        "qcompile int8": _qcompile(builds.artifact(model, "int8")),
    }
    values, distances, wanted = {}, {}, None
    for column, run in runs.items():
        builds.tell(f"{model.name}: accuracy of {column}")
        outputs = _outputs(run, feeds)
        wanted = outputs if wanted is None else wanted
        values[column], distances[column] = metric(outputs, feeds, truth), distance(outputs, wanted)
    figures = {"values": values, "distances": distances}
    return {"model": model.name, "metric": name, "better": better, "samples": _count(feeds), **figures}


def distance(outputs: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The squared error of the first output over the variance of the float model's.

    Scores of some hundred samples jump by a few answers either way whatever is done; this does not.
    """
    return float(np.square(outputs[0] - wanted[0]).mean() / wanted[0].var())


def row(result: dict[str, Any]) -> list[str]:
    percent = result["better"] == HIGHER and result["metric"] != "Spearman"
    values = [result["values"][column] for column in COLUMNS]
    shown = [f"{100 * v:.2f} %" if percent else f"{v:.4f}" for v in values]
    shown += [f"{result['distances'][column]:.1e}" for column in DISTANCES]
    return [result["model"], f"{result['metric']}, {result['better']}", str(result["samples"]), *shown]


COLUMNS = ("onnxruntime fp32", "onnxruntime int8", "qcompile fp32", "qcompile int8")
DISTANCES = ("onnxruntime int8", "qcompile int8")
HEADERS = ["model", "metric", "samples", *COLUMNS, *(f"distance of {column}" for column in DISTANCES)]


def evaluation_data(model: BenchModel) -> tuple[Feed, dict[str, np.ndarray]]:
    """Stacked inputs, and the rest of the file."""
    assert model.folder is not None
    if model.name == EXAMPLE:
        with np.load(model.folder / "test.npz") as data:
            return {"image": data["image"]}, {"labels": data["labels"]}
    return module(model.folder.parent / "load.py").load(model.folder / "eval.npz")


def metric_of(model: BenchModel) -> tuple[str, str, Metric]:
    if model.name == EXAMPLE:
        return "top-1", HIGHER, lambda outputs, feeds, truth: float(np.mean(outputs[0].argmax(-1) == truth["labels"]))
    assert model.folder is not None
    metrics = module(model.folder.parent / "metrics.py")

    def sentences(outputs: list[np.ndarray], feeds: Feed, truth: dict[str, np.ndarray]) -> float:
        first, second = outputs[0][0::2], outputs[0][1::2]
        return metrics.spearman((first * second).sum(1), truth["sts_score"])

    def perplexity(outputs: list[np.ndarray], feeds: Feed, truth: dict[str, np.ndarray]) -> float:
        return metrics.perplexity(outputs[0], truth["targets"].astype(np.int64))

    special: dict[str, tuple[str, str, Metric]] = {
        "ad_fc_ae": ("mean squared error", LOWER, lambda o, f, t: float(((o[0] - f["input"]) ** 2).mean())),
        "det_fastestdet": ("mAP50", HIGHER, lambda o, f, t: metrics.fastestdet_map50(o[0], t)),
        "nlp_minilm_l6": ("Spearman", HIGHER, sentences),
        "lm_tinygpt": ("perplexity", LOWER, perplexity),
        "rnn_charrnn": ("perplexity", LOWER, perplexity),
    }
    return special.get(model.name, ("top-1", HIGHER, lambda o, f, t: metrics.top1(o[0], t["labels"])))


def measured(artifact: qc.Artifact, feeds: Feed) -> list[np.ndarray]:
    """Outputs of all samples, stacked."""
    return _outputs(_qcompile(artifact), feeds)


def _qcompile(artifact: qc.Artifact) -> Run:
    runner = qc.load(artifact.path)
    return lambda feed: list(runner.run(feed).values())


def _onnxruntime(path: Path) -> Run:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)


def _outputs(run: Run, feeds: Feed) -> list[np.ndarray]:
    """Outputs of all samples, stacked."""
    results = [run(feed) for feed in one_by_one(feeds)]
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def _count(feeds: Feed) -> int:
    return len(next(iter(feeds.values())))
