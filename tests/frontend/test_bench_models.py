"""Real models against ONNX Runtime (marked bench)."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qcompile.frontend import import_onnx
from tests.frontend.onnx_models import names, operators, random_feeds, run, run_onnxruntime
from tests.frontend.quantized_models import quantize, simulated

BENCH = Path(os.environ.get("QCOMPILE_BENCH", Path(__file__).parents[2] / "../shared/bench")).resolve()
REAL = ["ad_fc_ae", "ic_resnet8", "imagenet_mnv1_025", "imagenet_mnv2", "kws_dscnn", "sww_dscnn1d", "vww_mnv1"]
REAL += ["det_fastestdet", "lm_tinygpt", "nlp_minilm_l6"]
GENERATED = ["resnet50", "squeezenet", "shufflenet", "densenet121", "inception_v1", "mobilenetv2", "bert_layer"]

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    subprocess.run([sys.executable, BENCH / "gen_perf_models.py", folder, *GENERATED], check=True, capture_output=True)
    return folder


def compare(path):
    imported = import_onnx(path)
    assert "call_tir" not in operators(imported) and "shape_of" not in operators(imported)
    assert len(set(names(imported))) == len(names(imported))
    feeds = random_feeds(imported)
    for ours, theirs in zip(run(imported, feeds), run_onnxruntime(str(path), feeds), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name", REAL)
def test_real(name):
    compare(BENCH / name / "model.onnx")


@pytest.mark.parametrize("name", GENERATED)
def test_generated(generated, name):
    compare(generated / f"{name}.onnx")


def calibration(name, count):
    spec = importlib.util.spec_from_file_location("bench_load", BENCH / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    feeds, _ = module.load(BENCH / name / "calib.npz", count)
    return [{key: value[i : i + 1] for key, value in feeds.items()} for i in range(count)]


@pytest.mark.parametrize("name", ["kws_dscnn", "ic_resnet8", "sww_dscnn1d", "ad_fc_ae"])
@pytest.mark.parametrize("kind", ["QDQ", "QOperator"])
def test_quantized(tmp_path, name, kind):
    samples = calibration(name, 5)
    path = quantize(tmp_path, kind, True, "QUInt8", BENCH / name / "model.onnx", samples[:4])
    imported = import_onnx(path)
    step = imported.imported_plan.tensors[names(imported)[-1]].affine.scale
    ours, theirs = run(simulated(imported), samples[4])[0], run_onnxruntime(path, samples[4])[0]
    assert np.abs(ours - theirs).max() <= 2.01 * step
