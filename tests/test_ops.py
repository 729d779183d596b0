"""Specs travel in the attributes of Relax functions as JSON."""

from __future__ import annotations

import pytest
from hypothesis import given

from qcompile import ops
from qcompile.ops import Affine, Conv2d, Epilogue
from tests.properties import cases


@given(cases.any_case())
def test_a_spec_survives_its_attribute(case):
    assert ops.from_json(ops.to_json(case.spec)) == case.spec


def test_infinite_bounds_survive():
    spec = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), 1, None, Epilogue(clip=(0.0, float("inf"))))
    assert ops.from_json(ops.to_json(spec)) == spec


def test_an_unknown_operator_is_no_spec():
    with pytest.raises(KeyError, match="frobnicate"):
        ops.from_json('{"op": "frobnicate"}')


def test_code_ranges():
    assert (Affine(1.0, 0).qmin, Affine(1.0, 0).qmax) == (0, 255)
    assert (Affine(1.0, 0, "int8").qmin, Affine(1.0, 0, "int8").qmax) == (-128, 127)
