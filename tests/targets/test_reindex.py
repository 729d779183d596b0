"""Reshape and permute_dims against numpy, between all storages."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.targets.kernels.reindex import permute_dims, reshape
from tests.targets.running import AVX2, VNNI, codes, run, stored

BORDER = (1, 0, 2, 1)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    ("shape", "block", "to", "to_block"),
    [
        ((2, 17, 3, 5), 16, (2, 255), 0),
        ((1, 40, 1, 1), 16, (1, 40), 0),
        ((2, 24, 4), 0, (2, 6, 4, 4), 16),
        ((2, 17, 9), 16, (2, 17, 1, 9), 16),
        ((1, 24, 2, 5), 16, (1, 12, 4, 5), 16),
        ((3, 40), 0, (2, 60), 0),
        ((1, 24, 2, 5), 16, (1, 240), 0),
        ((1, 12), 0, (1, 3, 2, 2), 3),
    ],
    ids=str,
)
def test_reshape(shape, block, to, to_block, dtype):
    data = codes(np.random.default_rng(0), shape).astype(dtype)
    x, out = stored(shape, block, BORDER, dtype), stored(to, to_block, BORDER, dtype)
    np.testing.assert_array_equal(run(reshape(x, out, AVX2), [(x, data)], out, AVX2), data.reshape(to))


@pytest.mark.parametrize(("dtype", "target"), [("uint8", VNNI), ("float32", AVX2)], ids=["uint8", "float32"])
@pytest.mark.parametrize(
    ("shape", "block", "axes", "to_block"),
    [
        ((2, 17, 3, 5), 16, (0, 2, 3, 1), 0),
        ((2, 3, 5, 17), 0, (0, 3, 1, 2), 16),
        ((2, 17, 9), 16, (0, 2, 1), 0),
        ((2, 9, 17), 0, (0, 2, 1), 16),
        ((2, 5, 3, 70), 0, (0, 2, 1, 3), 0),
        ((2, 3, 4), 0, (2, -2, 0), 0),
        ((1, 17, 3, 5), 16, (0, 1, 3, 2), 16),
        ((1, 5, 4, 3), 16, (3, 0, 2, 1), 0),
    ],
    ids=str,
)
def test_permute(shape, block, axes, to_block, dtype, target):
    data = codes(np.random.default_rng(0), shape).astype(dtype)
    expected = data.transpose(axes)
    x, out = stored(shape, block, BORDER, dtype), stored(expected.shape, to_block, BORDER, dtype)
    result = run(permute_dims(axes, x, out, target), [(x, data)], out, target)
    np.testing.assert_array_equal(result, expected)
