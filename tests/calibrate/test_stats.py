from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.calibrate import Histogram, TensorRecord, TensorStats
from qcompile.errors import QCompileError

VALUES = st.lists(st.floats(width=32, min_value=-1e6, max_value=1e6) | st.sampled_from([np.nan, np.inf, -np.inf]))


def test_a_record_holds_moments_of_the_finite_values_and_counts_the_rest():
    record = TensorRecord.of(np.array([[1.0, -3.0, np.nan], [4.0, np.inf, -np.inf]]))
    assert (record.count, record.nan, record.infinite) == (3, 1, 2)
    assert (record.min, record.max) == (-3.0, 4.0)
    assert (record.mean, record.mean_square) == (2 / 3, 26 / 3)
    assert record.histogram == Histogram.of(np.array([1.0, -3.0, 4.0]))


def test_sums_do_not_lose_what_float32_would():
    record = TensorRecord.of(np.full(1_000_000, 0.1, np.float32), histogram=False)
    assert record.mean == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    assert record.histogram is None


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.array([np.nan])])
def test_a_tensor_without_finite_values_has_a_record_too(values: np.ndarray):
    record = TensorRecord.of(values)
    assert (record.count, record.min, record.max, record.mean, record.mean_square) == (0, 0.0, 0.0, 0.0, 0.0)
    other = TensorRecord.of(np.array([5.0, 6.0]))
    assert (record.merge(other).min, other.merge(record).max) == (5.0, 6.0)


@settings(max_examples=50, deadline=None)
@given(VALUES, VALUES)
def test_merged_records_are_the_record_of_all_values(a: list[float], b: list[float]):
    merged = TensorRecord.of(np.array(a)).merge(TensorRecord.of(np.array(b)))
    whole = TensorRecord.of(np.array(a + b))
    for name in ("count", "nan", "infinite", "min", "max", "histogram"):
        assert getattr(merged, name) == getattr(whole, name), name
    assert merged.sum == pytest.approx(whole.sum, rel=1e-12, abs=1e-6)
    assert merged.sum_squares == pytest.approx(whole.sum_squares, rel=1e-12)


def test_stats_merge_over_samples():
    a = TensorStats({"x": TensorRecord.of(np.array([1.0]))}, samples=1)
    b = TensorStats({"x": TensorRecord.of(np.array([2.0, 3.0]))}, samples=2)
    merged = a.merge(b)
    assert (merged.samples, merged.records["x"].count, merged.records["x"].max) == (3, 3, 3.0)
    assert a.merge(TensorStats()) is a
    assert TensorStats().merge(a) is a
    with pytest.raises(TypeError):
        merged.records["y"] = None


def test_stats_of_another_model_do_not_merge():
    a = TensorStats({"x": TensorRecord(), "conv1": TensorRecord()}, samples=1)
    with pytest.raises(QCompileError) as error:
        a.merge(TensorStats({"x": TensorRecord()}, samples=1))
    assert str(error.value) == (
        "conv1: only one of the two statistics to merge has this tensor; "
        "merge statistics of one model, made by one version of qcompile"
    )


def test_a_file_gives_back_every_number(tmp_path):
    rng = np.random.default_rng(0)
    stats = TensorStats(
        {
            'conv "1":0': TensorRecord.of(rng.normal(size=1000)),
            "no histogram": TensorRecord.of(np.array([0.1, np.nan]), histogram=False),
            "empty": TensorRecord(),
        },
        samples=4,
    )
    path = tmp_path / "stats.json"
    stats.save(path)
    loaded = TensorStats.load(path)
    assert loaded.samples == 4
    assert dict(loaded.records) == dict(stats.records)
    first = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == first


def test_a_file_that_cannot_be_written_says_so_and_an_older_one_survives(tmp_path):
    with pytest.raises(QCompileError) as error:
        TensorStats().save(tmp_path / "none" / "stats.json")
    assert str(error.value) == (
        f"{tmp_path}/none/stats.json: cannot be written (No such file or directory); choose another path"
    )
    (tmp_path / "stats.json").mkdir()
    with pytest.raises(QCompileError, match="cannot be written"):
        TensorStats().save(tmp_path / "stats.json")
    assert [file.name for file in tmp_path.iterdir()] == ["stats.json"]


def test_a_file_of_another_version_is_refused(tmp_path):
    path = tmp_path / "stats.json"
    path.write_text(json.dumps({"version": 7}))
    with pytest.raises(QCompileError) as error:
        TensorStats.load(path)
    assert str(error.value) == (
        f"{path}: version 7 of the statistics format is not known here; this qcompile reads version 1; calibrate again"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "{",
            "not calibration statistics (JSONDecodeError: Expecting property name enclosed in double quotes: line 1 ",
        ),
        ("{}", "not calibration statistics (KeyError: 'version')"),
        (
            '{"version": 1, "samples": 1, "tensors": {"x": {"histogram": null, "spam": 1}}}',
            "not calibration statistics (",
        ),
        (None, "No such file or directory; give a file that TensorStats.save wrote"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path, text: str | None, reason: str):
    path = tmp_path / "stats.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(QCompileError) as error:
        TensorStats.load(path)
    assert str(error.value).startswith(f"{path}: {reason}")
    assert str(error.value).endswith("; give a file that TensorStats.save wrote")


def test_statistics_need_no_tvm():
    code = "import sys, qcompile.calibrate; sys.exit('tvm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
