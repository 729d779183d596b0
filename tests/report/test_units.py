from __future__ import annotations

import pytest

from qcompile.report import units


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KB"), (3 << 20, "3.0 MB"), (5 << 40, "5120.0 GB")]
)
def test_size(value, text):
    assert units.size(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, ""), (999, "999"), (1234567, "1.23M"), (4_100_000_000, "4.1G")])
def test_count(value, text):
    assert units.count(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (1.25, "1.2"), (999.94, "999.9"), (12345.6, "12346")])
def test_microseconds(value, text):
    assert units.microseconds(value) == text


def test_shape():
    assert units.shape((1, 3, 224, 224)) == "1x3x224x224" and units.shape(()) == "scalar"
