from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import approx_fprime

from qcompile.calibrate.least_error import CodedTensor, Weights, _error, _Logs, least_error_scales

CHANNELS = 6
positive = hnp.arrays(np.float64, CHANNELS, elements=st.floats(0.01, 100))


def tensor(high, low=0.0, squares=1.0, weights=None, index=None) -> CodedTensor:
    high, low, squares = (np.broadcast_to(np.float64(values), (CHANNELS,)) for values in (high, low, squares))
    return CodedTensor(np.arange(CHANNELS) if index is None else index, low, high, squares, weights)


def total(coded: CodedTensor, numbers: np.ndarray) -> float:
    return _error(coded, _Logs.of(coded), np.append(np.log(numbers), 0)[coded.index])[0]


@settings(deadline=None, max_examples=30)
@given(high=positive, low=positive, scale=positive, parts=st.sampled_from([1, 2, 3]), seed=st.integers(0, 99))
def test_slopes_are_those_of_the_error(high, low, scale, parts, seed):
    rng = np.random.default_rng(seed)
    magnitude = rng.exponential(size=(parts, 4, CHANNELS // parts)) * (rng.random((parts, 4, CHANNELS // parts)) > 0.2)
    coded = tensor(high, -low, rng.exponential(size=CHANNELS), Weights(magnitude, 127, rng.exponential(size=CHANNELS)))
    logs, at = _Logs.of(coded), np.log(scale)
    slopes = approx_fprime(at, lambda x: _error(coded, logs, x)[0], 1e-6)
    np.testing.assert_allclose(_error(coded, logs, at)[1], slopes, atol=2e-4)


def test_weights_that_do_not_mind_leave_channels_equally_wide():
    high = np.array([0.5, 1, 2, 4, 8, 16])
    numbers = least_error_scales([tensor(high)], np.ones(CHANNELS), 256)
    assert numbers.min() == pytest.approx(1)
    np.testing.assert_allclose(high * numbers, 16, rtol=0.25)


def test_rows_of_weights_with_one_step_hold_it_back():
    """What makes the narrow channels wide takes the steps of the weights that read the wide one."""
    high = np.array([1, 1, 1, 1, 1, 100.0])
    weights = Weights(np.ones((1, 8, CHANNELS)), 127, np.square(high) / 3)
    free, held = (least_error_scales([tensor(high, weights=w)], np.ones(CHANNELS), 256) for w in (None, weights))
    assert free[0] > 70
    assert 1.5 < held[0] / held[-1] < 30


def test_channels_without_a_number_stay_as_they_are():
    """Channels 3 to 5 of the second tensor are 10 wide in any case, so that number 0 need not grow beyond that."""
    first = tensor([1, 50, 50, 50, 50, 50])
    second = tensor([10, 1, 1, 10, 10, 10], index=np.array([0, 1, 2, -1, -1, -1]))
    alone = least_error_scales([first], np.ones(CHANNELS), 256)
    both = least_error_scales([first, second], np.ones(CHANNELS), 256)
    assert alone[0] / alone[1] > 35 > both[0] / both[1]
    assert 0.5 < both[0] < 5 and both[1:3].max() < 10
    assert total(first, both) + total(second, both) < total(first, alone) + total(second, alone)


@settings(deadline=None, max_examples=30)
@given(high=hnp.arrays(np.float64, CHANNELS, elements=st.floats(0, 1000)))
def test_never_worse_than_where_it_starts_and_within_bounds(high):
    coded = tensor(high, weights=Weights(np.ones((2, 3, CHANNELS // 2)), 7, np.square(high)))
    numbers = least_error_scales([coded], np.ones(CHANNELS), 64)
    assert numbers.min() == pytest.approx(1) and numbers.max() <= 64 * (1 + 1e-9)
    assert total(coded, numbers) <= total(coded, np.ones(CHANNELS)) + 1e-6


@pytest.mark.parametrize("weights", [None, Weights(np.zeros((1, 2, CHANNELS)), 127, np.zeros(CHANNELS))])
def test_nothing_but_zeros_is_left_as_it_is(weights):
    numbers = least_error_scales([tensor(0.0, squares=0.0, weights=weights)], np.ones(CHANNELS), 256)
    np.testing.assert_array_equal(numbers, np.ones(CHANNELS))
