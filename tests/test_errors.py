"""Errors are one line: where, what, and what to do."""

from __future__ import annotations

from qcompile.errors import QCompileError, nearest


def test_an_error_is_one_line():
    error = QCompileError("does\nnot fit", node="conv1", remedy="give another   shape")
    assert str(error) == "conv1: does not fit; give another shape"
    assert (error.node, error.reason, error.remedy) == ("conv1", "does\nnot fit", "give another   shape")
    assert str(QCompileError("is broken")) == "is broken"


def test_the_nearest_name_is_offered():
    assert nearest("cov1", ["conv1", "pool"]) == "did you mean 'conv1'? (one of: conv1, pool)"
    assert nearest("zzz", ["conv1", "pool"]) == "(one of: conv1, pool)"


def test_a_long_list_is_cut():
    text = nearest("t2x", [f"t{i}" for i in range(40)])
    assert text.startswith("did you mean 't2")
    assert text.endswith("t11, ... 40 in all)")
