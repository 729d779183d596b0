"""Real models as CUDA kernels, run by an emulation of their threads: the oracle's bits, and none of them spills."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

import qcompile as qc
from qcompile import graph
from qcompile.passes.base import dtype_of, shape_of
from qcompile.passes.lower_cuda import lower_cuda, lower_cuda_each
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.reference import interpreter
from qcompile.scaled import model_for
from qcompile.targets.cuda.compiler import find_compiler
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.rows import ROWS
from tests.e2e.bench_set import CNNS, GENERATED, generate, model_path, plan_of, random_samples, samples

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    generate(folder)
    return folder


def integer_form(model: qc.Model, data):
    """data: None leaves every layer in float32."""
    plan = plan_of(model, data) if data is not None else qc.QuantPlan()
    model = model_for(model, plan)
    return run_passes(model.module, form_passes(plan, model.layers))


def with_every_tensor(form):
    """The same with all codes as results."""
    main = graph.read(form)
    builder, new = graph.MainBuilder(main.params, form), {}
    for var, value in main.bindings:
        new[var] = builder.emit(graph.substitute(value, new), var.name)
    codes = [v for v in new if isinstance(v.ty, relax.TensorType) and dtype_of(v) in ("uint8", "int8")]
    return builder.module([new[v] for v in dict.fromkeys([*main.outputs, *codes])])


def check_registers(form) -> None:
    compiler = find_compiler()
    for arch, program in lower_cuda_each(form, ROWS[0])[0].items():
        uses = compiler.cubin(program.source, arch).kernels
        assert not {name: use for name, use in uses.items() if use.spills or use.stack}, arch


def check(form, feeds) -> None:
    program, notes = lower_cuda(form)
    check_registers(form)
    # Sums in another order, functions of another library.
    float_operators = any(name in note.op for note in notes for name in ("softmax", "sigmoid", "power"))
    for module in (form, with_every_tensor(form)):  # the second reuses no memory, but hides nothing behind a softmax
        program, _ = lower_cuda(module)
        emulated, main = Emulated(program.source), graph.read(module)
        for feed in feeds:
            got = [np.zeros(shape_of(output), dtype_of(output)) for output in main.outputs]
            emulated.run(program, [feed[param.name] for param in main.params], got)
            for (name, want), result in zip(interpreter.run(module, feed).items(), got, strict=True):
                if float_operators and result.dtype == np.float32:
                    np.testing.assert_allclose(result, want, rtol=1e-5, atol=1e-7, err_msg=name)
                else:
                    np.testing.assert_array_equal(result, want, err_msg=name)


@pytest.mark.parametrize("name", CNNS)
def test_real_models(name):
    model = qc.import_onnx(model_path(name))
    check(integer_form(model, samples(name, "calib", 16)[0]), samples(name, "eval", 2)[0])


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("name", ["lm_tinygpt", "nlp_minilm_l6", "rnn_charrnn"])
def test_transformers_and_recurrent_models(name, precision):
    """What is normalized differs in the last bits, so that a code may be its neighbour."""
    model = qc.import_onnx(model_path(name))
    form = integer_form(model, samples(name, "calib", 16)[0] if precision == "int8" else None)
    program, notes = lower_cuda(form)
    check_registers(form)
    assert not [note for note in notes if note.note == "one block"]
    emulated, main = Emulated(program.source), graph.read(form)
    for feed in samples(name, "eval", 2)[0]:
        got = [np.zeros(shape_of(output), dtype_of(output)) for output in main.outputs]
        emulated.run(program, [feed[param.name] for param in main.params], got)
        for want, result in zip(interpreter.run(form, feed).values(), got, strict=True):
            assert np.linalg.norm(result - want) <= (1e-2 if precision == "int8" else 1e-4) * np.linalg.norm(want)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_models(name, generated):
    model = qc.import_onnx(generated / f"{name}.onnx")
    check(integer_form(model, random_samples(model, 2)), random_samples(model, 1, seed=1))
