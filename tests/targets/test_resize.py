"""Bilinear resize against the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import Affine, Epilogue, ResizeLinear
from qcompile.reference import pooling
from qcompile.targets.kernels.resize import resize_linear
from tests.targets.running import codes, each_target, run, stored


def weights(rng, extent, outputs):
    """Random neighbours, and weights that sum to 2048."""
    index = rng.integers(0, extent, (outputs, 2)).astype(np.int32)
    low = rng.integers(0, 2049, outputs).astype(np.int32)
    return index, np.stack([low, 2048 - low], 1)


@each_target
@pytest.mark.parametrize(("block", "out_block"), [(16, 16), (0, 0), (16, 0)])
@pytest.mark.parametrize("q", [Affine(0.02, 128), Affine(0.02, 0)], ids=str)
@pytest.mark.parametrize("result", [Epilogue(Affine(0.03, 7)), Epilogue(None)], ids=["codes", "float"])
def test_resize_linear(block, out_block, q, result, target):
    rng = np.random.default_rng(0)
    x = stored((2, 17, 3, 5), block, (1, 1, 0, 0))
    out = stored((2, 17, 7, 4), out_block, (0, 1, 1, 0), "uint8" if result.out else "float32")
    spec = ResizeLinear(q, result)
    args = [codes(rng, x.shape), *weights(rng, 3, 7), *weights(rng, 5, 4)]
    actual = run(resize_linear(spec, x, out, target), [(x, args[0]), *args[1:]], out, target)
    np.testing.assert_array_equal(actual, pooling.resize_linear(spec, *args))
