"""The methods against slow definitions that read the same histogram one bin after the other."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.calibrate import METHODS, Histogram, TensorRecord, TensorStats, ranges, tensor_range
from qcompile.calibrate.methods import MSE_STEPS, TIE
from qcompile.errors import QCompileError

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=20_000)
TENSORS = {
    "normal": NORMAL,
    "relu": np.maximum(NORMAL, 0),
    "heavy tails": RNG.standard_t(2.5, size=20_000),
    "silu": NORMAL / (1 + np.exp(-3 * NORMAL)),
    "negative": -np.abs(NORMAL) - 1,
    "far from 0": -70 + 10 * NORMAL,
    "uniform": RNG.random(5_000),
    "outlier": np.append(NORMAL, 300.0),
    "few values": RNG.integers(-2, 9, size=500),
    "constant": np.full(100, 3.0),
    "zero": np.zeros(10),
    "tiny": NORMAL * 1e-39,
    "huge": NORMAL * 5e37,
    "empty": np.zeros(0),
}
RECORDS = {name: TensorRecord.of(values) for name, values in TENSORS.items()}


def within(record: TensorRecord, low: float, high: float) -> tuple[float, float]:
    return min(max(low, record.min), 0.0), max(min(high, record.max), 0.0)


def bins(histogram: Histogram) -> dict[int, int]:
    return {histogram.first + i: int(count) for i, count in enumerate(histogram.counts)}


def windows(histogram: Histogram) -> list[tuple[int, int]]:
    """Bins [first, last] of [-t, t) for every t."""
    first, last = histogram.first, histogram.first + histogram.counts.size - 1
    return [(max(-t, first), min(t - 1, last)) for t in range(1, max(-first, last + 1) + 1)]


def slow_percentile(record: TensorRecord, percent: float) -> tuple[float, float]:
    histogram = record.histogram
    if not record.count:
        return 0.0, 0.0
    values = [k for k, count in bins(histogram).items() for _ in range(count)]  # sorted
    cut = math.floor(record.count * (1 - percent / 100) / 2)
    return within(record, values[cut] * histogram.width, (values[len(values) - 1 - cut] + 1) * histogram.width)


def slow_divergence(counts: dict[int, int], first: int, last: int, levels: int) -> float:
    size = last - first + 1
    levels_of = {k: (k - first) * levels // size for k in range(first, last + 1)}
    mass, filled = [0] * levels, [0] * levels
    for k, level in levels_of.items():
        mass[level] += counts[k]
        filled[level] += counts[k] > 0
    q = {k: mass[level] / filled[level] for k, level in levels_of.items() if counts[k]}
    p = {k: counts[k] for k in levels_of}
    p[first] += sum(count for k, count in counts.items() if k < first)
    p[last] += sum(count for k, count in counts.items() if k > last)
    for k in p:
        if p[k] and k not in q:
            q[k] = 1e-4
    total = sum(p.values())
    return math.fsum((p[k] * math.log(p[k] / q[k]) if p[k] else 0) - p[k] + q.get(k, 0) for k in p) / total


def slow_entropy(record: TensorRecord, levels: int) -> tuple[float, float]:
    histogram = record.histogram
    counts = bins(histogram)
    counts[0] = min(counts[0], max(counts.get(-1, 0), counts.get(1, 0)))
    candidates = [(first, last) for first, last in windows(histogram) if last - first + 1 >= levels]
    if not candidates or not any(counts.values()):
        return within(record, record.min, record.max)
    divergence = [slow_divergence(counts, first, last, levels) for first, last in candidates]
    first, last = [c for c, d in zip(candidates, divergence, strict=True) if d <= min(divergence) + TIE][-1]
    return within(record, first * histogram.width, (last + 1) * histogram.width)


def slow_mse(record: TensorRecord, levels: int) -> tuple[float, float]:
    histogram = record.histogram
    candidates = windows(histogram)
    best, least = within(record, record.min, record.max), math.inf
    for step in range(MSE_STEPS, 0, -1):
        first, last = candidates[math.ceil(step * len(candidates) / MSE_STEPS) - 1]
        low, high = within(record, first * histogram.width, (last + 1) * histogram.width)
        if high == low:
            continue
        scale = (high - low) / (levels - 1)
        zero_point = np.rint(-low / scale)
        terms = []
        for k, count in bins(histogram).items():
            value = (k + 0.5) * histogram.width
            code = min(max(np.rint(value / scale) + zero_point, 0), levels - 1)
            terms.append(count * ((code - zero_point) * scale - value) ** 2)
        error = math.fsum(terms)
        if error < least * (1 - 1e-12):
            best, least = (low, high), error
    return best


@pytest.mark.parametrize("name", TENSORS)
def test_minmax(name: str):
    values = np.append(TENSORS[name], 0).astype(np.float32)
    assert tensor_range(RECORDS[name]) == (values.min(), values.max())


@pytest.mark.parametrize("percent", [99.99, 99, 50])
@pytest.mark.parametrize("name", TENSORS)
def test_percentile_equals_the_definition(name: str, percent: float):
    assert tensor_range(RECORDS[name], "percentile", percent) == slow_percentile(RECORDS[name], percent)


@pytest.mark.parametrize("name", TENSORS)
def test_entropy_equals_the_definition(name: str):
    assert tensor_range(RECORDS[name], "entropy") == slow_entropy(RECORDS[name], 256)


@pytest.mark.parametrize("name", ["heavy tails", "silu", "outlier", "constant", "zero", "tiny", "huge", "empty"])
def test_mse_equals_the_definition(name: str):
    small = TensorRecord.of(TENSORS[name][-40:])
    assert tensor_range(small, "mse", levels=16) == slow_mse(small, 16)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=50),
    st.sampled_from(METHODS),
    st.floats(50, 100),
)
def test_a_range_includes_0_and_stays_within_the_values(values: list[float], method: str, percent: float):
    record = TensorRecord.of(np.array(values, np.float32))
    low, high = tensor_range(record, method, percent)
    assert min(record.min, 0) <= low <= 0 <= high <= max(record.max, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=300), st.floats(1, 100))
def test_a_percentile_range_holds_so_many_percent_of_the_values(values: list[float], percent: float):
    low, high = tensor_range(TensorRecord.of(np.array(values)), "percentile", percent)
    share = len(values) * (1 - percent / 100) / 2
    assert sum(value < low for value in values) <= share
    assert sum(value > high for value in values) <= share


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_a_single_outlier_among_a_million_is_cut_off(method: str):
    values = np.append(np.random.default_rng(1).normal(size=1_000_000), 60)
    low, high = tensor_range(TensorRecord.of(values), method)
    assert high < 30
    assert low == pytest.approx(values.min(), rel=0.3)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_far_from_0_is_not_cut_away(method: str):
    low, high = tensor_range(RECORDS["far from 0"], method)
    assert low < -95
    assert -35 <= high <= 0


def test_zeros_of_a_relu_do_not_decide_by_entropy():
    sparse = np.concatenate([np.maximum(NORMAL, 0), np.zeros(1_000_000)])
    assert tensor_range(TensorRecord.of(sparse), "entropy") == tensor_range(RECORDS["relu"], "entropy")


def test_a_hundred_tensors_by_entropy_take_less_than_five_seconds():
    stats = TensorStats({f"t{i}": RECORDS["normal"] for i in range(100)}, samples=1)
    begin = time.process_time()
    found = ranges(stats, "entropy")
    assert time.process_time() - begin < 5
    assert set(found.values()) == {tensor_range(RECORDS["normal"], "entropy")}


def test_an_unknown_method_offers_the_nearest():
    with pytest.raises(QCompileError) as error:
        tensor_range(TensorRecord(), "entropie")
    assert str(error.value) == (
        "unknown calibration method 'entropie'; did you mean 'entropy'? "
        "(one of: auto, minmax, percentile, entropy, mse)"
    )


def test_a_percentile_must_be_a_share():
    with pytest.raises(QCompileError) as error:
        tensor_range(TensorRecord(), "percentile", 101)
    assert str(error.value) == "percentile 101 is not above 0 and at most 100; 99.99 is usual"


def test_a_method_that_needs_a_histogram_says_so_and_names_the_tensor():
    stats = TensorStats({"conv1": TensorRecord.of(NORMAL, histogram=False)}, samples=1)
    assert ranges(stats)["conv1"] == tensor_range(RECORDS["normal"])
    with pytest.raises(QCompileError) as error:
        ranges(stats, "mse")
    assert str(error.value) == (
        "conv1: no histogram, which the method 'mse' needs; calibrate with method='mse', or use 'minmax'"
    )


def test_auto_is_between_mse_and_minmax():
    values = np.random.default_rng(3).normal(size=20_000).astype(np.float32)
    values[0] = 30.0
    record = TensorRecord.of(values)
    tops = [tensor_range(record, method)[1] for method in ("mse", "auto", "minmax")]
    assert tops[0] < tops[1] <= tops[2] == 30.0


def test_auto_keeps_what_is_usual_in_one_channel():
    """A few values of 30 are rare in the tensor; if they are a channel's own, they stay."""
    values = np.random.default_rng(4).normal(size=(4000, 400)).astype(np.float32)
    values[:, 7] += 60.0
    assert tensor_range(TensorRecord.of(values, axis=1), "auto")[1] >= 63.0
    assert tensor_range(TensorRecord.of(values[:1], False), "auto") == tensor_range(
        TensorRecord.of(values[:1]), "minmax"
    )
