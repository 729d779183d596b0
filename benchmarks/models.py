"""The models that are measured, with data: a bench folder's, two generated ones, or the example in the repository.

A bench folder has ``<name>/{model.onnx,calib.npz,eval.npz}``, ``load.py`` that reads such .npz files, ``metrics.py``,
and ``gen_perf_models.py`` that makes ResNet-50 and MobileNetV2 with random weights.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx

Feed = dict[str, np.ndarray]

BENCH = Path(__file__).resolve().parents[2] / "shared" / "bench"
GENERATED = ("resnet50", "mobilenetv2")
REAL = (
    "ic_resnet8",
    "kws_dscnn",
    "vww_mnv1",
    "sww_dscnn1d",
    "ad_fc_ae",
    "imagenet_mnv1_025",
    "imagenet_mnv2",
    "det_fastestdet",
    "rnn_charrnn",
    "lm_tinygpt",
    "nlp_minilm_l6",
)
EXAMPLE = "digits"
SAMPLES = 256  # at most, for calibration: all that there are
GENERATED_SAMPLES = 32
TRANSFORMERS = ("lm_tinygpt", "nlp_minilm_l6")
MATMULS = ("MatMul", "Gemm", "Gather")  # what ONNX Runtime quantizes of a transformer without ruining it


@dataclass(frozen=True)
class BenchModel:
    """A model and feeds of batch 1. folder: where the evaluation data is, None if there is none."""

    name: str
    onnx: Path
    calibration: list[Feed] = field(repr=False)
    folder: Path | None = None

    @property
    def feed(self) -> Feed:
        return self.calibration[0]

    @property
    def peer_operators(self) -> tuple[str, ...]:
        """The operator types that ONNX Runtime is to quantize; () for all."""
        return MATMULS if self.name in TRANSFORMERS else ()


def bench_folder() -> Path:
    """Where the models are, whether they are or not."""
    return Path(os.environ.get("QCOMPILE_BENCH") or BENCH)


def find(wanted: Sequence[str], bench: Path) -> tuple[list[BenchModel], list[str]]:
    """The models that are there, all if none is named, and a note for each that is not."""
    if not (bench / "load.py").is_file():
        note = f"no bench models in {bench} (set QCOMPILE_BENCH): only the example model is measured"
        return [example()], [note]
    models, notes = [], []
    for name in wanted or (*GENERATED, *REAL):
        if name == EXAMPLE:
            models.append(example())
        elif name in GENERATED:
            models.append(generated(name, bench))
        elif (bench / name / "model.onnx").is_file():
            models.append(real(name, bench))
        else:
            notes.append(f"{name}: not in {bench}")
    return models, notes


def real(name: str, bench: Path) -> BenchModel:
    feeds, _ = module(bench / "load.py").load(bench / name / "calib.npz", SAMPLES)
    return BenchModel(name, bench / name / "model.onnx", one_by_one(feeds), bench / name)


def generated(name: str, bench: Path) -> BenchModel:
    file = cache() / f"{name}.onnx"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, bench / "gen_perf_models.py", file.parent, name], check=True, stdout=subprocess.DEVNULL
        )
    (image,) = [i for i in onnx.load(file).graph.input]
    shape = [d.dim_value for d in image.type.tensor_type.shape.dim]
    random = np.random.default_rng(0)
    feeds = [{image.name: random.standard_normal(shape, np.float32)} for _ in range(GENERATED_SAMPLES)]
    return BenchModel(name, file, feeds)


def example() -> BenchModel:
    folder = Path(__file__).resolve().parents[1] / "examples" / EXAMPLE
    with np.load(folder / "calib.npz") as data:
        return BenchModel(EXAMPLE, folder / "model.onnx", one_by_one(dict(data))[:SAMPLES], folder)


def one_by_one(feeds: Feed) -> list[Feed]:
    """Stacked samples as feeds of batch 1."""
    count = len(next(iter(feeds.values())))
    return [{name: np.ascontiguousarray(array[i : i + 1]) for name, array in feeds.items()} for i in range(count)]


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qcompile" / "bench-models"


def module(file: Path) -> ModuleType:
    """The Python file of a bench folder as a module."""
    spec = importlib.util.spec_from_file_location(f"bench_{file.stem}", file)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
