"""The real models of ``../shared/bench`` and the topologies of its generator, for tests marked bench."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

import qcompile as qc
from qcompile.model import Model

BENCH = Path(os.environ.get("QCOMPILE_BENCH", Path(__file__).parents[2] / "../shared/bench")).resolve()
CNNS = ("ic_resnet8", "kws_dscnn", "vww_mnv1", "ad_fc_ae", "sww_dscnn1d", "imagenet_mnv1_025", "imagenet_mnv2")
CNNS += ("det_fastestdet",)
TRANSFORMERS = ("lm_tinygpt", "nlp_minilm_l6")
GENERATED = ("resnet50", "squeezenet", "shufflenet", "densenet121", "inception_v1", "mobilenetv2", "bert_layer")

Feeds = dict[str, np.ndarray]


@cache
def helper(name: str) -> ModuleType:
    """``load`` or ``metrics`` of the bench set."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_path(name: str) -> Path:
    return BENCH / name / "model.onnx"


def samples(name: str, part: str, count: int | None = None) -> tuple[list[Feeds], dict[str, np.ndarray]]:
    """Feeds of batch one from calib.npz or eval.npz, and what else the file holds."""
    feeds, extras = helper("load").load(BENCH / name / f"{part}.npz", count)
    length = len(next(iter(feeds.values())))
    count = length if count is None else min(count, length)
    return [{key: value[i : i + 1] for key, value in feeds.items()} for i in range(count)], extras


def random_samples(model: Model, count: int, seed: int = 0) -> list[Feeds]:
    rng = np.random.default_rng(seed)
    return [{i.name: rng.standard_normal(i.shape).astype(i.dtype) for i in model.inputs} for _ in range(count)]


def generate(folder: Path) -> None:
    """Every topology, as <name>.onnx."""
    subprocess.run([sys.executable, BENCH / "gen_perf_models.py", folder, *GENERATED], check=True, capture_output=True)


def plan_of(model: Model, data: list[Feeds]) -> qc.QuantPlan:
    """With default options."""
    return qc.plan_uniform(model, qc.calibrate(model, data), "int8", qc.select_target("native"))


def score(name: str, run, feeds: list[Feeds], extras: dict[str, np.ndarray]) -> float:
    """The model's metric, in per cent where it is one. ``run``: feeds -> first output."""
    out = np.concatenate([run(f).copy() for f in feeds])
    metrics = helper("metrics")
    if name == "ad_fc_ae":
        return float(((out - np.concatenate([f["input"] for f in feeds])) ** 2).mean())
    if name == "det_fastestdet":
        return metrics.fastestdet_map50(out, extras) * 100
    if name == "nlp_minilm_l6":
        return metrics.spearman((out[0::2] * out[1::2]).sum(1), extras["sts_score"])
    if name == "lm_tinygpt":
        return metrics.perplexity(out, extras["targets"].astype(np.int64))
    return metrics.top1(out, extras["labels"]) * 100
