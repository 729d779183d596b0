"""A built model neither allocates nor leaks when it is called."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

import qcompile as qc

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
CALLS = 3000


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_calls_touch_no_new_memory(tmp_path, precision):
    model = qc.import_onnx(DIGITS / "model.onnx")
    stats = qc.calibrate(model, DIGITS / "calib.npz", num_samples=4)
    artifact = qc.build(model, qc.plan_uniform(model, stats, precision), out=tmp_path / "digits")
    call = qc.load(artifact.path).bind()
    call.inputs["image"][...] = np.load(DIGITS / "sample.npz")["image"]
    for _ in range(100):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        call()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < CALLS / 10, "page faults: the heap grows"
