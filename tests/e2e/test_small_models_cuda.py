"""The same little models on an emulated GPU, against the oracle: in float32 and int8, compiled together."""

from __future__ import annotations

import numpy as np
import pytest

import qcompile as qc
from qcompile import graph
from qcompile.passes.base import dtype_of, shape_of
from qcompile.passes.cuda_memory import Kernels
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.plan import QuantPlan
from qcompile.reference import interpreter
from qcompile.scaled import model_for
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import templates
from tests.e2e.small_models import MODELS
from tests.e2e.test_small_models import feeds, int8_plan

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["fp32", "int8"])
def lowered(request):
    """name -> (model, form, program), and the emulation of all."""
    kernels, found = Kernels(), {}
    for name, make in MODELS.items():
        imported = qc.import_onnx(make())
        plan = int8_plan(imported) if request.param == "int8" else QuantPlan()
        model = model_for(imported, plan)
        form = run_passes(model.module, form_passes(plan, model.layers))
        found[name] = (model, form, lower_cuda(form, kernels)[0])
    return found, Emulated(templates() + kernels.text, optimize=0)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_near_the_oracle(lowered, name):
    (model, form, program), emulated = lowered[0][name], lowered[1]
    x, main = feeds(model.inputs, 77), graph.read(form)
    got = [np.zeros(shape_of(output), dtype_of(output)) for output in main.outputs]
    emulated.run(program, [x[param.name] for param in main.params], got)
    for result, (which, want) in zip(got, interpreter.run(form, x).items(), strict=True):
        if want.dtype.kind == "f":
            near = 1e-3 if want.dtype == np.float16 else 1e-5
            np.testing.assert_allclose(result, want, rtol=near, atol=near * np.abs(want).max(), err_msg=which)
        else:
            np.testing.assert_array_equal(result, want, err_msg=which)
