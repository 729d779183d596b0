"""Mean against the oracle, over every kind of axes and storage."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import Affine, Epilogue, Mean
from qcompile.reference import pooling
from qcompile.targets.kernels.reduce import mean
from tests.targets.running import AVX2, VNNI, codes, run, stored

CASES = [  # shape, block, axes, keepdims, block of the result
    ((2, 24, 3, 5), 16, (2, 3), True, 16),
    ((2, 24, 3, 5), 16, (2, 3), True, 0),
    ((2, 17, 3, 5), 16, (-1, -2), False, 0),
    ((1, 3, 5, 5), 3, (2, 3), True, 3),
    ((1, 5, 4, 4), 16, (1,), True, 16),
    ((2, 3, 7), 0, (-1,), False, 0),
    ((2, 40, 6), 16, (2,), True, 16),
]


@pytest.mark.parametrize(
    ("dtype", "target"), [("uint8", VNNI), ("uint8", AVX2), ("float32", VNNI)], ids=["vnni", "avx2", "float32"]
)
@pytest.mark.parametrize(("shape", "block", "axes", "keepdims", "out_block"), CASES, ids=str)
def test_mean(shape, block, axes, keepdims, out_block, dtype, target):
    rng = np.random.default_rng(0)
    integer = dtype == "uint8"
    data = codes(rng, shape) if integer else rng.standard_normal(shape, np.float32)
    spec = Mean(axes, keepdims, Affine(0.02, 128) if integer else None, Epilogue(Affine(0.017, 9) if integer else None))
    expected = pooling.mean(spec, data)
    x = stored(shape, block, (0, 1, 0, 1), dtype)
    out = stored(expected.shape, out_block, (0, 1, 0, 2), dtype)
    result = run(mean(spec, x, out, target), [(x, data)], out, target)
    if integer:
        np.testing.assert_array_equal(result, expected)
    else:
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
