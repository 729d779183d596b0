"""Pooling against the oracle: edges, strides, dilation, ceil_mode, sequences, every storage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompile.ops import Affine, AvgPool2d, Epilogue
from qcompile.reference import arithmetic, pooling
from qcompile.reference.bfloat16 import rounded
from qcompile.reference.windows import Window, max_windows
from qcompile.targets.kernels.pool import avg_pool2d, max_pool2d
from tests.targets.running import AVX2, VNNI, codes, each_target, run, stored

X, OUT = Affine(0.02, 128), Affine(0.017, 9)
SHAPES = [((2, 24, 9, 8), 16), ((1, 3, 7, 5), 3), ((1, 5, 6, 9), 0), ((2, 17, 9), 16)]
WINDOWS = [
    Window((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), False),
    Window((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), True),
    Window((3, 2), (1, 1), (1, 1, 1, 0), (2, 1), False),
    Window((5, 5), (1, 1), (2, 2, 2, 2), (1, 1), False),
]


def placed(shape, block, window, dtype):
    """(window, input and output storage) of a shape; a sequence keeps the W half of the window."""
    if len(shape) == 3:
        _, left, _, right = window.padding
        _, (_, k), (_, s), (_, d) = window.padding, window.size, window.strides, window.dilation
        window = Window((1, k), (1, s), (0, left, 0, right), (1, d), window.ceil_mode)
    height, width = window.outputs(*(shape[2:] if len(shape) == 4 else (1, shape[2])))
    out = (*shape[:2], height, width) if len(shape) == 4 else (*shape[:2], width)
    border = (1, 1, 0, 2)
    return window, stored(shape, block, border, dtype), stored(out, block, border, dtype)


def drawn(rng, s):
    return rounded(rng.standard_normal(s.shape, np.float32)) if s.is_float else codes(rng, s.shape, s.dtype)


@pytest.mark.parametrize(
    ("dtype", "target"),
    [("uint8", VNNI), ("int8", AVX2), ("float32", VNNI), ("bfloat16", AVX2)],
    ids=lambda a: str(a)[:8],
)
@pytest.mark.parametrize("number", range(len(WINDOWS)))
@pytest.mark.parametrize(("shape", "block"), SHAPES, ids=str)
def test_max(shape, block, number, dtype, target):
    w, x, out = placed(shape, block, WINDOWS[number], dtype)
    data = drawn(np.random.default_rng(0), x)
    kernel = max_pool2d(w.size, w.strides, w.padding, w.dilation, x, out, target)
    expected = max_windows(data.reshape(x.image if x.blocked else shape), w).reshape(out.shape)
    np.testing.assert_array_equal(run(kernel, [(x, data)], out, target), expected)


@each_target
@pytest.mark.parametrize(("number", "include_pad"), [(0, False), (0, True), (1, False), (2, True), (3, False)])
@pytest.mark.parametrize(("shape", "block"), SHAPES, ids=str)
def test_average(shape, block, number, include_pad, target):
    q = X if target is VNNI else Affine(0.02, -5, "int8")
    w, x, out = placed(shape, block, WINDOWS[number], "uint8")
    x = replace(x, dtype=q.dtype)
    data = drawn(np.random.default_rng(0), x)
    spec = AvgPool2d(w.size, w.strides, w.padding, w.dilation, w.ceil_mode, include_pad, q, Epilogue(OUT))
    multiplier = arithmetic.pool_multipliers(q, w.size[0] * w.size[1], OUT)
    result = run(avg_pool2d(spec, x, out, target), [(x, data), multiplier], out, target)
    np.testing.assert_array_equal(result, pooling.avg_pool2d(spec, data, multiplier))


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("block", [0, 16])
def test_float_average(block, include_pad):
    w, x, out = placed((1, 17, 6, 5), block, WINDOWS[0], "float32")
    data = drawn(np.random.default_rng(0), x)
    spec = AvgPool2d(w.size, w.strides, w.padding, w.dilation, False, include_pad, None, Epilogue(None, (0.0, 0.5)))
    result = run(avg_pool2d(spec, x, out, VNNI), [(x, data)], out, VNNI)
    np.testing.assert_allclose(result, pooling.avg_pool2d(spec, data), rtol=1e-5, atol=1e-6)


def test_sums_beyond_16_bits():
    x, out = stored((1, 16, 17, 18), 16), stored((1, 16, 1, 1), 16)
    spec = AvgPool2d((17, 18), (1, 1), (0, 0, 0, 0), (1, 1), False, False, X, Epilogue(OUT))
    multiplier = arithmetic.pool_multipliers(X, 17 * 18, OUT)
    data = np.full(x.shape, 255, np.uint8)
    result = run(avg_pool2d(spec, x, out, VNNI), [(x, data), multiplier], out, VNNI)
    np.testing.assert_array_equal(result, pooling.avg_pool2d(spec, data, multiplier))


def test_the_largest_16_bit_sums():
    x, out = stored((1, 16, 16, 16), 16), stored((1, 16, 1, 1), 16)
    spec = AvgPool2d((16, 16), (1, 1), (0, 0, 0, 0), (1, 1), False, False, X, Epilogue(OUT))
    multiplier = arithmetic.pool_multipliers(X, 256, OUT)
    data = np.full(x.shape, 255, np.uint8)
    result = run(avg_pool2d(spec, x, out, VNNI), [(x, data), multiplier], out, VNNI)
    np.testing.assert_array_equal(result, pooling.avg_pool2d(spec, data, multiplier))
