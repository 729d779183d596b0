"""Layers that read narrow floats, on a CPU that has no products of them: what they round is what the oracle rounds."""

from __future__ import annotations

import numpy as np
import pytest

import qcompile as qc
from qcompile.compile import runnable
from qcompile.formats import FORMATS
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.reference import interpreter
from qcompile.reference.narrow import NARROW
from qcompile.targets.select import select_target
from tests.building import samples
from tests.e2e.test_bf16 import kinds_of_convolutions
from tests.e2e.test_w4a8 import block

FLOATS = [row.name for row in FORMATS.values() if row.activations in NARROW]


@pytest.mark.parametrize("precision", FLOATS)
@pytest.mark.parametrize("made", [kinds_of_convolutions, block], ids=["convolutions", "block of a transformer"])
def test_kernels_agree_with_the_oracle(made, precision):
    imported = qc.import_onnx(made())
    plan = qc.plan_uniform(imported, None, precision)
    form = run_passes(imported.module, form_passes(plan, imported.layers))
    (feed,) = samples(imported, 1)
    (got,) = runnable(form, select_target("native"))(feed).values()
    (want,) = interpreter.run(form, feed).values()
    exact = run_passes(imported.module, form_passes(qc.QuantPlan(), imported.layers))
    (real,) = interpreter.run(exact, feed).values()
    # Sums in another order differ by float32's rounding, which may tip what the next layer rounds.
    step = 2.0 ** -NARROW[FORMATS[precision].activations].mantissa
    scale = np.abs(want).max()
    assert np.abs(got - want).max() <= step * scale / 4
    assert 0 < np.abs(want - real).max() <= 8 * step * scale
