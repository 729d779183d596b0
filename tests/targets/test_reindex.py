"""permute_dims against numpy, between the storages that it takes."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.targets.kernels.reindex import moves_vectors, permute_dims
from tests.targets.running import AVX2, VNNI, codes, run, stored

BORDER = (1, 0, 2, 1)


@pytest.mark.parametrize(("dtype", "target"), [("uint8", VNNI), ("float32", AVX2)], ids=["uint8", "float32"])
@pytest.mark.parametrize(
    ("shape", "block", "axes", "to_block"),
    [
        ((2, 17, 3, 5), 16, (0, 2, 3, 1), 0),
        ((2, 3, 5, 17), 0, (0, 3, 1, 2), 16),
        ((2, 17, 9), 16, (0, 2, 1), 0),
        ((2, 9, 17), 0, (0, 2, 1), 16),
        ((2, 5, 3, 70), 0, (0, 2, 1, 3), 0),
        ((2, 3, 4), 0, (1, 0, 2), 0),
        ((1, 5, 4, 3), 16, (3, 0, 2, 1), 0),
    ],
    ids=str,
)
def test_permute(shape, block, axes, to_block, dtype, target):
    data = codes(np.random.default_rng(0), shape).astype(dtype)
    expected = data.transpose(axes)
    x, out = stored(shape, block, BORDER, dtype), stored(expected.shape, to_block, BORDER, dtype)
    assert moves_vectors(axes, x, out)
    result = run(permute_dims(axes, x, out, target), [(x, data)], out, target)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("shape", "block", "axes", "to_block"),
    [((2, 3, 4), 0, (2, 1, 0), 0), ((1, 17, 3, 5), 16, (0, 1, 3, 2), 16), ((1, 17, 3, 5), 16, (0, 1, 3, 2), 0)],
)
def test_others_are_declined(shape, block, axes, to_block):
    to = tuple(shape[axis] for axis in axes)
    assert not moves_vectors(axes, stored(shape, block), stored(to, to_block))
