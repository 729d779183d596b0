"""Scatters against numpy."""

import numpy as np
import pytest
import tvm

from qcompile.targets.kernels.scatter import COMBINE, scatter_elements, scatter_nd

AT = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def run(function, x, indices, updates):
    y = tvm.runtime.tensor(np.empty_like(x))
    compiled = tvm.compile(function.with_attr("global_symbol", "scatter"), tvm.target.Target("llvm"))
    compiled["scatter"](*(tvm.runtime.tensor(a) for a in (x, indices, updates)), y)
    return y.numpy()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("reduction", COMBINE)
def test_elements(reduction, axis):
    rng = np.random.default_rng(axis)
    shape, where = (4, 3, 5), (2, 3, 4)
    x, updates = (rng.standard_normal(s, dtype=np.float32) for s in (shape, where))
    indices = rng.integers(-shape[axis], shape[axis], where)
    expected = x.copy()
    for place in np.ndindex(where):
        at = (*place[:axis], indices[place], *place[axis + 1 :])
        expected[at] = updates[place] if reduction == "update" else AT[reduction](expected[at], updates[place])
    actual = run(scatter_elements(shape, where, axis, "float32", "int64", reduction), x, indices, updates)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("reduction", COMBINE)
def test_slices(reduction, depth):
    rng = np.random.default_rng(depth)
    shape, where = (4, 3, 5), (6, depth)
    indices = np.stack([rng.integers(-n, n, 6) for n in shape[:depth]], -1).astype(np.int32)
    x, updates = (
        rng.standard_normal(shape, dtype=np.float32),
        rng.standard_normal((6, *shape[depth:]), dtype=np.float32),
    )
    expected = x.copy()
    for number, index in enumerate(indices):
        at = tuple(index)
        expected[at] = updates[number] if reduction == "update" else AT[reduction](expected[at], updates[number])
    actual = run(scatter_nd(shape, where, "float32", "int32", reduction), x, indices, updates)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_what_is_out_of_range_writes_nothing_foreign():
    x, updates = np.zeros(3, np.float32), np.array([1, 2], np.float32)
    y = run(scatter_nd((3,), (2, 1), "float32", "int64", "update"), x, np.array([[7], [-9]]), updates)
    assert y.tolist() == [2, 0, 1]
