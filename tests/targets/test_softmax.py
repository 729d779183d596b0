"""Softmax against the oracle, along every axis."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import Affine, Epilogue, Softmax
from qcompile.reference import elementwise as oracle
from qcompile.targets.kernels.softmax import softmax
from tests.targets.running import codes, each_target, run, stored


@each_target
@pytest.mark.parametrize("result", [Epilogue(Affine(1 / 256, 0)), Epilogue(None)], ids=["codes", "float"])
@pytest.mark.parametrize(
    ("shape", "block", "axis"),
    [((3, 37), 0, -1), ((1, 2, 511), 0, 2), ((2, 10, 3), 0, 1), ((1, 21, 2, 3), 16, 1), ((1, 5, 4), 16, -1)],
    ids=str,
)
def test_softmax(shape, block, axis, result, target):
    q = Affine(0.05, 100)
    x = stored(shape, block, (1, 0, 1, 0))
    out = stored(shape, block, (0, 1, 0, 1), "uint8" if result.out else "float32")
    data = codes(np.random.default_rng(0), shape)
    spec, table = Softmax(axis, q, result), oracle.exponentials(q)
    actual = run(softmax(spec, x, out, target), [(x, data), table], out, target)
    np.testing.assert_array_equal(actual, oracle.softmax(spec, data, table))
