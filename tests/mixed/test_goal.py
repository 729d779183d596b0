"""What may drop, and by how much."""

from __future__ import annotations

import pytest

from qcompile.errors import QCompileError
from qcompile.mixed.goal import Drop, Goal, drop


@pytest.mark.parametrize(
    ("text", "wanted", "allowed"),
    [("0.5%", Drop(0.5, True), 0.004), (" 1 % ", Drop(1, True), 0.008), ("0.01", Drop(0.01), 0.01), ("0", Drop(0), 0)],
)
def test_drops(text, wanted, allowed):
    assert drop(text) == wanted and wanted.allowed(0.8) == pytest.approx(allowed)
    assert drop(str(wanted)) == wanted


@pytest.mark.parametrize("text", ["-1", "half", "", "%", "1%%", "nan"])
def test_what_is_no_drop(text):
    with pytest.raises(QCompileError, match=f"--max-drop: '{text}' is no drop"):
        drop(text)


def test_percent_of_a_negative_value():
    assert Drop(10, True).allowed(-2) == pytest.approx(0.2)


def test_a_share_of_nothing():
    with pytest.raises(QCompileError, match="fp32 is at 0 by the metric, and 0.5% of that is nothing; give"):
        Drop(0.5, True).check(0.0)
    Drop(0.5, True).check(0.8)
    Drop(0.5).check(0.0)
    Drop(0, True).check(0.0)


def test_something_must_be_limited():
    with pytest.raises(QCompileError, match="nothing limits the choice"):
        Goal(objective="latency")
