from __future__ import annotations

import pytest

from qcompile.errors import QCompileError
from qcompile.formats import FORMATS, format_of, format_with
from qcompile.plan import LayerPlan


def test_rows_go_by_their_names():
    assert all(format_of(name) is row and row.name == name for name, row in FORMATS.items())


def test_who_reads_codes():
    assert {name for name in FORMATS if LayerPlan(name).codes} == {"int8", "w4a8"}
    assert {name: row.activation_bytes for name, row in FORMATS.items() if row.activation_bytes < 4} == {
        "bf16": 2, "half": 2, "fp8_e4m3": 1, "fp8_e5m2": 1, "int8": 1, "w4a8": 1,
    }  # fmt: skip


def test_an_unknown_name():
    with pytest.raises(QCompileError, match=r"unknown format 'int9'; did you mean 'int8'"):
        _ = LayerPlan("int9").codes


def test_rows_are_told_apart_by_what_they_compute_on():
    assert all(format_with(row.activations, row.weights) is row for row in FORMATS.values())
