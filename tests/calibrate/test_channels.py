from __future__ import annotations

import numpy as np
import pytest

from qcompile.calibrate.channels import ChannelStats


def naive(values: np.ndarray, axis: int) -> list[np.ndarray]:
    rows = [r[np.isfinite(r)].astype(np.float64) for r in np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)]
    facts = [(r.size, r.sum(), (r * r).sum(), r.min(initial=0) if not r.size else r.min(), r) for r in rows]
    return [np.array([f[i] for f in facts]) for i in range(4)]


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("holes", [False, True])
def test_statistics_by_channel(axis, holes):
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    if holes:
        values[0, 1] = np.inf
        values[:, 2, :, 2] = np.nan
    stats = ChannelStats.of(values, axis)
    count, total, squares, low = naive(values, axis)
    np.testing.assert_array_equal(stats.count, count)
    np.testing.assert_allclose(stats.sum, total, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(stats.squares, squares, rtol=1e-6)
    np.testing.assert_allclose(stats.min, low, rtol=1e-6)


def test_merging_is_as_seeing_all_at_once():
    values = np.random.default_rng(1).normal(size=(4, 3, 6)).astype(np.float32)
    values[:2, 1] = np.nan  # a channel without values says nothing of the range
    merged = ChannelStats.of(values[:2], 1).merge(ChannelStats.of(values[2:], 1))
    whole = ChannelStats.of(values, 1)
    for name in ("count", "sum", "squares", "min", "max"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-6)


def test_json_brings_everything_back():
    stats = ChannelStats.of(np.random.default_rng(2).normal(size=(2, 3, 6)).astype(np.float32), 1)
    assert ChannelStats.from_json(stats.to_json()) == stats


def test_other_channels_do_not_merge():
    one, other = (ChannelStats.of(np.zeros((1, n, 2), np.float32), 1) for n in (2, 3))
    with pytest.raises(ValueError, match="2 channels along 1, 3 along 1"):
        one.merge(other)
