"""The numbers that candidates are checked with."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.tune.arrays import constants_of, difference, feed_of
from tests.tune.workloads import conv, dense, dense_int4, dense_w8

WORKLOADS = {
    "codes": conv(),
    "residual": conv(residual=True),
    "dense": dense(),
    "int4": dense_int4(),
    "int8 weights": dense_w8(),
    "float": conv(False),
    "float residual": conv(False, residual=True),
    "floats out": dense(True, True),
}
each = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)


@each
def test_the_same_in_every_process(workload):
    one, other = feed_of(workload), feed_of(workload)
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.want, other.want)
    assert (one.residual is None) == (workload.residual is None)


@each
def test_results_are_spread_over_all_codes(workload):
    want = feed_of(workload).want
    assert want.dtype == workload.out.dtype
    if want.dtype == np.uint8:
        assert ((want > 0) & (want < 255)).mean() > 0.5
        assert np.unique(want).size > (100 if want.size > 1000 else 30)
    weight = constants_of(workload).weight
    if workload.integer and weight.size > 1000:
        assert (weight.min(), weight.max()) == ((-8, 7) if workload.group else (-127, 127))


@each
def test_one_wrong_element_is_seen(workload):
    want = feed_of(workload).want
    flat = workload.out.store(want).copy()
    assert difference(workload, flat, want) == ""
    at = workload.out.at(*(n - 1 for n in workload.out.shape))
    flat[at] += 1
    assert difference(workload, flat, want).startswith(f"wrong result: 1 of {flat.size} elements, ")


def test_border_that_is_not_written_is_seen():
    workload = conv()
    want = feed_of(workload).want
    flat = workload.out.store(want)
    flat[0] = 1  # outside of the image
    assert difference(workload, flat, want) == f"wrong result: 1 of {flat.size} elements, first 1 for 0"


def test_floats_may_be_summed_in_any_order_and_codes_may_not():
    for workload, tolerated in ((conv(False), True), (dense(True, True), False)):
        want = feed_of(workload).want
        flat = workload.out.store(want) * np.float32(1 + 1e-6)
        assert (difference(workload, flat, want) == "") == tolerated


def test_channels_that_fill_up_a_block_hold_anything():
    workload = conv(channels=(16, 24))
    want = feed_of(workload).want
    flat = workload.out.store(want)
    flat.reshape(2, 10, 10, 16)[1, 3, 3, 8:] = 99
    assert difference(workload, flat, want) == ""
