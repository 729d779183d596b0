"""The same claim on GPUs: kernels equal the oracle, to the bit, run by an emulation of their threads on this CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qcompile import graph
from qcompile.formats import FORMATS, Format
from qcompile.passes.base import dtype_of, shape_of
from qcompile.passes.cuda_memory import Kernels
from qcompile.passes.lower_cuda import lower_cuda
from qcompile.reference import interpreter, narrow
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import templates
from qcompile.targets.cuda.rows import ROWS, CudaTarget
from tests.properties import cases, graphs
from tests.properties.graphs import IntegerGraph, module_of
from tests.properties.test_compiled import LAYERS

CODES = ("uint8", "int8")
AMPERE = ROWS[0].narrowed("sm_80")
FLOATS = (cases.conv2d_case, cases.conv1d_case, cases.conv_transpose2d_case, cases.dense_case)
FLOATS += (cases.avg_pool2d_case, cases.mean_case, cases.binary_case)


def examples(strategy: st.SearchStrategy, count: int) -> list:
    """All at once, since a C++ compiler takes its time: what fails is not made smaller."""
    found = []

    @settings(max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(drawn):
        found.append(drawn)

    collect()
    return found


def assert_equal_oracle(
    every: Sequence[IntegerGraph], architecture: int = 800, tolerance: float = 0, target: CudaTarget = AMPERE
) -> None:
    kernels = Kernels()
    programs = [lower_cuda(drawn.module, kernels, target)[0] for drawn in every]
    emulated = Emulated(templates() + kernels.text, optimize=0, architecture=architecture)
    for drawn, program in zip(every, programs, strict=True):
        main = graph.read(drawn.module)
        inputs = [drawn.feeds[param.name] for param in main.params]
        expected = interpreter.run(drawn.module, drawn.feeds)
        for backwards in (False, True):
            got = [np.zeros(shape_of(output), dtype_of(output)) for output in main.outputs]
            emulated.run(program, inputs, got, backwards)
            for (name, value), result in zip(expected.items(), got, strict=True):
                near = tolerance and np.allclose(result, value, rtol=tolerance, atol=tolerance * np.abs(value).max())
                assert near or np.array_equal(result, value), f"{name} of\n{drawn}"


def test_layers():
    assert_equal_oracle([module_of(case) for name in LAYERS for case in examples(LAYERS[name], 3)])


def test_graphs():
    assert_equal_oracle(examples(graphs.integer_graphs(dtypes=CODES), 12))


def test_layers_of_floats():
    """Whose sums may be taken in any order."""
    drawn = [case for strategy in FLOATS for case in examples(strategy(integer=False), 3)]
    assert_equal_oracle([module_of(case) for case in drawn], tolerance=1e-5)


def in_format(case: cases.Case, row: Format) -> cases.Case:
    """A layer of float32 as one of narrow floats; scales of channels beside 8-bit weights."""
    x, weight, bias, *rest = case.args
    scales = [np.linspace(0.5, 2, bias.size, dtype=np.float32)] * (row.activation_bytes == 1)
    spec = replace(case.spec, weights=row.weights, reads=row.activations)
    args = (x, narrow.rounded(weight, row.weights).astype(row.weights), bias, *scales, *rest)
    return replace(case, spec=spec, args=args, activations=tuple(a + (a > 2) * len(scales) for a in case.activations))


def test_layers_of_narrow_floats():
    """Of Ada, which has products of all of them."""
    rows = [row for row in FORMATS.values() if row.activations == row.weights != "float32"]
    drawn = [case for strategy in FLOATS[:4] for case in examples(strategy(integer=False), 2)]
    every = [module_of(in_format(case, row)) for case in drawn for row in rows]
    assert_equal_oracle(every, tolerance=1e-5, target=ROWS[0].narrowed("sm_89"))


def test_the_smaller_products_of_older_architectures():
    weighted = ("conv2d", "dense")
    assert_equal_oracle([module_of(case) for name in weighted for case in examples(LAYERS[name], 3)], architecture=750)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_many_layers(name):
    assert_equal_oracle([module_of(case) for case in examples(LAYERS[name], 60)])


@pytest.mark.slow
def test_many_graphs():
    assert_equal_oracle(examples(graphs.integer_graphs(dtypes=CODES), 150))
