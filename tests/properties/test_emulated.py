"""The same claim on ARM: compiled modules equal the oracle, to the bit, under an emulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from qcompile.reference import interpreter
from qcompile.targets.arm import ROWS
from qcompile.targets.target import Target
from tests.emulation import run_module, skip_without
from tests.properties import graphs
from tests.properties.graphs import IntegerGraph, module_of
from tests.properties.test_compiled import LAYERS

NEON, DOTPROD = ROWS[-1], ROWS[1]
each_row = pytest.mark.parametrize("target", ROWS, ids=lambda row: row.name)


def assert_equals_oracle(drawn: IntegerGraph, target: Target) -> None:
    expected = interpreter.run(drawn.module, drawn.feeds)
    got = run_module(drawn.module, drawn.feeds, target)
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype and np.array_equal(got[name], value), name


def few(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    skip_without(DOTPROD)

    @few(2)
    @given(LAYERS[name])
    def check(case):
        assert_equals_oracle(module_of(case), DOTPROD)

    check()


@each_row
def test_graphs(target):
    skip_without(target)

    @few(3)
    @given(graphs.integer_graphs(dtypes=("uint8", "int8")))
    def check(drawn):
        assert_equals_oracle(drawn, target)

    check()


@pytest.mark.slow
@each_row
def test_many_graphs(target):
    skip_without(target)

    @few(150)
    @given(graphs.integer_graphs(dtypes=("uint8", "int8")))
    def check(drawn):
        assert_equals_oracle(drawn, target)

    check()


@pytest.mark.slow
@each_row
@pytest.mark.parametrize("name", LAYERS)
def test_many_layers(name, target):
    skip_without(target)

    @few(25)
    @given(LAYERS[name])
    def check(case):
        assert_equals_oracle(module_of(case), target)

    check()
