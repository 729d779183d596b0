"""A profile from known times."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.manifest import KernelCall, LayerInfo
from qcompile.runtime.profile import split

CALLS = (KernelCall("relayout_0", "conv"), KernelCall("conv2d_3", "conv"), KernelCall("softmax", "probs"))
LAYERS = (
    LayerInfo("conv", "conv2d", "int8", "conv2d vpdpbusd.512 1x8x32", (), (), macs=1000),
    LayerInfo("probs", "softmax", "fp32", "softmax", (), ()),
)


def test_parts_add_up_to_the_call():
    stamps = 100 + np.cumsum([[0, 2, 30, 1], [0, 4, 50, 3], [0, 4, 50, 3], [0, 4, 50, 3]], axis=1, dtype=np.float64)
    stamped = np.array([34.0, 58.0, 58.0, 58.0])
    plain = np.array([900.0, 33.5, 40.0, 41.0])
    profile = split(CALLS, LAYERS, plain, stamped, stamps)
    assert [k.microseconds for k in profile.kernels] == [2, 30, 1], "of the fastest quarter"
    assert (profile.overhead, profile.clock, profile.call) == (1, 0.5, 33.5)
    assert sum(k.microseconds for k in profile.kernels) + profile.overhead - profile.clock == profile.call


def test_the_mean_of_a_quarter():
    stamps = np.outer(np.arange(8), [0.0, 1.0, 2.0, 3.0])
    profile = split(CALLS, LAYERS, np.arange(8.0), np.arange(8.0) + 10, stamps)
    assert [k.microseconds for k in profile.kernels] == [0.5] * 3 and profile.call == 0.5


def test_work_is_that_of_the_kernel_named_for_the_layers_operator():
    profile = split(CALLS, LAYERS, np.ones(1), np.ones(1), np.zeros((1, 4)))
    assert [(k.kernel, k.macs, k.format) for k in profile.kernels] == [
        ("relayout_0", 0, ""),
        ("conv2d_3", 1000, "int8"),
        ("softmax", 0, ""),
    ]


def test_every_kernel_has_its_stamps():
    with pytest.raises(ValueError):
        split(CALLS, LAYERS, np.ones(1), np.ones(1), np.zeros((1, 3)))
