"""The histogram of a stream is the histogram of all its values, whatever the order, portions and magnitudes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.calibrate.histogram import BINS, MIN_EXPONENT, Histogram

FLOATS = st.one_of(
    st.floats(-100, 100, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),  # denormals and 3e38 too
    st.sampled_from([0.0, -0.0, 1.0, 2048.0, 2047.9, -2048.0, 2.0**-149, -(2.0**-149), 3.4e38, -3.4e38]),
)
PARTS = st.lists(st.lists(FLOATS, max_size=20), max_size=5)


def slow(values: list[float]) -> tuple[int, dict[int, int]]:
    """Exponent and bin -> count by the definition, in exact integer arithmetic (a float is a ratio of integers)."""

    def bin_of(value: float, exponent: int) -> int:
        numerator, denominator = float(value).as_integer_ratio()
        return (numerator << max(-exponent, 0)) // (denominator << max(exponent, 0))

    low, high = min([0.0, *values]), max([0.0, *values])
    exponent = MIN_EXPONENT
    while bin_of(high, exponent) - bin_of(low, exponent) >= BINS:
        exponent += 1
    counts: dict[int, int] = {}
    for value in values:
        counts[bin_of(value, exponent)] = counts.get(bin_of(value, exponent), 0) + 1
    return exponent, counts


def filled(histogram: Histogram) -> dict[int, int]:
    return {histogram.first + i: int(n) for i, n in enumerate(histogram.counts) if n}


@settings(max_examples=100, deadline=None)
@given(PARTS)
def test_a_stream_gives_the_histogram_of_all_values_by_the_definition(parts: list[list[float]]):
    stream = Histogram()
    for part in parts:
        stream = stream.merge(Histogram.of(np.array(part, np.float32)))
    values = [value for part in parts for value in part]
    assert stream == Histogram.of(np.array(values, np.float32))
    assert (stream.exponent, filled(stream)) == slow(values)


@settings(max_examples=50, deadline=None)
@given(st.lists(FLOATS), st.lists(FLOATS), st.lists(FLOATS))
def test_merging_is_associative_and_commutative_and_starts_from_the_empty_one(a, b, c):
    a, b, c = (Histogram.of(np.array(values, np.float32)) for values in (a, b, c))
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)
    assert a.merge(Histogram()) == a


def test_bins_are_merged_in_pairs_when_the_range_doubles():
    fine = Histogram.of(np.array([-0.1, 0.5, 0.6, 1023.75], np.float32))
    assert (fine.exponent, fine.width) == (0, 1.0)
    coarse = fine.merge(Histogram.of(np.array([2048.0], np.float32)))
    assert coarse.exponent == 1
    assert filled(fine) == {-1: 1, 0: 2, 1023: 1}
    assert filled(coarse) == {-1: 1, 0: 2, 511: 1, 1024: 1}


def test_every_value_lies_within_the_edges_of_its_bin():
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)  # more than one chunk
    histogram = Histogram.of(values.reshape(2, -1))
    expected, _ = np.histogram(values, bins=histogram.edges)
    np.testing.assert_array_equal(histogram.counts, expected)
    assert histogram.total == values.size
    np.testing.assert_array_equal(histogram.centers, (histogram.edges[1:] + histogram.edges[:-1]) / 2)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e5, 1e30])
def test_at_least_half_of_the_bins_span_the_values(scale: float):
    histogram = Histogram.of(np.array([-1, 2, 5], np.float32) * np.float32(scale))
    assert BINS // 2 < histogram.counts.size <= BINS


def test_a_tiny_negative_value_beside_a_huge_one_keeps_its_sign():
    histogram = Histogram.of(np.array([-1e-40, 3e38], np.float32))
    assert histogram.first == -1
    assert histogram.counts[0] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(bad: float):
    with pytest.raises(ValueError, match="a histogram holds finite values only"):
        Histogram.of(np.array([1, bad], np.float32))


def test_more_than_2048_bins_or_bins_beside_zero_are_refused():
    with pytest.raises(ValueError, match="bins 0 to 2048: not 2048 bins or fewer around 0"):
        Histogram(0, 0, np.zeros(2049))
    with pytest.raises(ValueError, match="bins -3 to -2"):
        Histogram(0, -3, np.zeros(2))
    with pytest.raises(ValueError, match="read-only"):
        Histogram().counts[0] = 1
