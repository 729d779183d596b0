"""Recurrent layers on an emulated GPU are near the oracle: each kind, direction and option."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from qcompile import graph
from qcompile.passes.cuda_memory import Kernels
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.reference import interpreter
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import templates
from qcompile.targets.kernels.recurrent import FUNCTIONS, Activation, Cell, cell_of, recurrent

STEPS, BATCH, SIZE = 4, 2, 19
USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
ODD = (Activation("HardSigmoid", 0.2, 0.5), Activation("Softsign"), Activation("Elu", 1.0))


def cell(kind: str, reverse: tuple[bool, ...] = (False,), odd: bool = False, **options) -> Cell:
    functions = tuple(Activation(name) for name in USUAL[kind])
    other = ODD[: FUNCTIONS[kind]] if odd else functions
    return Cell(kind, SIZE, reverse, (functions, other)[-len(reverse) :], **options)


CELLS = {
    **{f"{kind} both ways": cell(kind, (False, True), odd=True) for kind in USUAL},
    **{kind: cell(kind) for kind in USUAL},
    "backwards": cell("LSTM", (True,)),
    "peepholes": cell("LSTM", peepholes=True, clip=0.5),
    "coupled": cell("LSTM", coupled=True),
    "reset after": cell("GRU", (False, True), reset_after=True),
}


def graph_of(each: Cell, lengths: bool):
    function = recurrent(each, STEPS, BATCH, lengths)
    types = [relax.TensorType(p.ty.shape, str(p.ty.dtype)) for p in function.params]
    count = 1 + len(each.operands(lengths))
    params = [relax.Var(p.name, ty) for p, ty in zip(function.params[:count], types, strict=False)]
    builder = graph.MainBuilder(params)
    call = builder.emit(relax.call_tir(builder.add_function(function, "layer"), params, types[count:]), "layer")
    results = each.results()[:-1]
    return builder.module([builder.emit(relax.TupleGetItem(call, i), name) for i, name in enumerate(results)])


@pytest.fixture(scope="module")
def lowered():
    kernels = Kernels()
    forms = {(name, lengths): graph_of(CELLS[name], lengths) for name in CELLS for lengths in (False, True)}
    programs = {key: lower_cuda(form, kernels)[0] for key, form in forms.items()}
    return forms, programs, Emulated(templates() + kernels.text, optimize=0)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_layers_are_near_the_oracle(lowered, name, lengths):
    forms, programs, emulated = lowered
    form, rng = forms[name, lengths], np.random.default_rng(0)
    feeds = {p.name: rng.uniform(-1, 1, [int(e) for e in p.ty.shape]) for p in graph.read(form).params}
    feeds = {key: value.astype(np.float32) for key, value in feeds.items()}
    if lengths:
        feeds["lengths"] = np.array([3, STEPS], np.int32)
    want = interpreter.run(form, feeds)
    for order in range(3):
        got = [np.zeros_like(value) for value in want.values()]
        emulated.run(programs[name, lengths], list(feeds.values()), got, order)
        for result, (which, value) in zip(got, want.items(), strict=True):
            np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-6, err_msg=which)


def test_a_kernel_says_what_it_computes():
    assert cell_of(recurrent(CELLS["peepholes"], STEPS, BATCH)) == CELLS["peepholes"]
