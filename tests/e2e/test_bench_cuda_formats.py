"""Real models as CUDA kernels in every format, emulated: as near the oracle as sums in another order allow."""

from __future__ import annotations

import numpy as np
import pytest

import qcompile as qc
from benchmarks.cuda.cases import EXACT, TOLERANCE
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.reference import interpreter
from qcompile.targets.cuda.compiler import find_compiler
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.rows import ROWS
from tests.e2e.bench_set import model_path, samples

pytestmark = pytest.mark.bench

ROW = ROWS[0].narrowed("sm_89")  # the oldest that has all formats


@pytest.mark.parametrize("precision", ["w4a8", "fp32", "half", "bf16", "fp8_e4m3", "fp8_e5m2"])
@pytest.mark.parametrize("name", ["ic_resnet8", "kws_dscnn", "imagenet_mnv1_025", "ad_fc_ae"])
def test_real_models(name, precision):
    model = qc.import_onnx(model_path(name))
    stats = qc.calibrate(model, samples(name, "calib", 8)[0])
    form = run_passes(model.module, form_passes(qc.plan_uniform(model, stats, precision), model.layers))
    program, notes = lower_cuda(form, target=ROW)
    uses = find_compiler().cubin(program.source, ROW.architecture).kernels
    assert not {kernel: use for kernel, use in uses.items() if use.spills or use.stack}
    emulated = Emulated(program.source)
    softmax = any("softmax" in note.op for note in notes)
    for feed in samples(name, "eval", 2)[0]:
        (want,) = interpreter.run(form, feed).values()
        got = np.zeros(want.shape, np.float32)
        emulated.run(program, list(feed.values()), [got])
        if precision in EXACT and not softmax:
            np.testing.assert_array_equal(got, want)
        tolerance = TOLERANCE.get(precision, 1e-5)
        assert np.abs(got - want).max() <= tolerance * np.abs(want).max()
