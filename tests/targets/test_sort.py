"""Sorting against numpy's stable sort."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from qcompile.targets.kernels.sort import scratch_elements, sort


def run(x, axis, keep, descending, values=True, positions="int64"):
    function = sort(x.shape, axis, str(x.dtype), keep, descending, values, positions).with_attr("global_symbol", "sort")
    cut = (*x.shape[:axis], keep, *x.shape[axis + 1 :])
    results = [np.empty(cut, dtype) for dtype in (x.dtype,) * values + (positions,) * bool(positions)]
    tensors = [tvm.runtime.tensor(array) for array in (*results, np.empty(scratch_elements(x.shape[axis]), np.int32))]
    tvm.compile(function, tvm.target.Target("llvm"))["sort"](tvm.runtime.tensor(x), *tensors)
    return [tensor.numpy() for tensor in tensors[:-1]]


def stable(x, axis, keep, descending):
    order = np.argsort(-x.astype(np.float64) if descending else x, axis, kind="stable").take(range(keep), axis)
    return np.take_along_axis(x, order, axis), order


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize(("length", "keep"), [(1, 1), (2, 2), (3, 1), (17, 5), (64, 64), (1000, 3)])
def test_lengths(length, keep, descending):
    x = np.random.default_rng(length).standard_normal((2, length), dtype=np.float32)
    for got, want in zip(run(x, 1, keep, descending), stable(x, 1, keep, descending), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
def test_equal_elements_stay_in_order(axis, dtype):
    x = np.random.default_rng(0).integers(0, 4, (9, 13, 6)).astype(dtype)
    for got, want in zip(run(x, axis, 6, True), stable(x, axis, 6, True), strict=True):
        np.testing.assert_array_equal(got, want)


def test_one_result_alone():
    x = np.array([3, 1, 2], np.float32)
    assert run(x, 0, 3, False, positions="")[0].tolist() == [1, 2, 3]
    assert run(x, 0, 3, False, values=False, positions="int32")[0].tolist() == [1, 2, 0]
