"""Element-wise kernels against the oracle: every mix of storages, broadcasting, tails, zero points."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import Affine, Binary, Epilogue, Lookup
from qcompile.reference import elementwise as oracle
from qcompile.targets.kernels.elementwise import binary, clip, lookup
from tests.targets.running import VNNI, codes, each_target, run, stored

A, B, OUT = Affine(0.02, 128), Affine(0.013, 0), Affine(0.03, 77)
RELU6 = (0.0, 6.0)


def check_binary(spec, sa, sb, out, target):
    rng = np.random.default_rng(0)
    a, b = (
        codes(rng, s.shape, s.dtype) if s.dtype != "float32" else rng.standard_normal(s.shape, np.float32)
        for s in (sa, sb)
    )
    result = run(binary(spec, sa, sb, out=out, target=target), [(sa, a), (sb, b)], out, target)
    np.testing.assert_array_equal(result, oracle.binary(spec, a, b))


PAIRS = {  # shapes and blocks of a and b, block of the result
    "one stretch": ((2, 24, 3, 5), 16, (2, 24, 3, 5), 16, 16),
    "channels": ((1, 40, 4, 4), 16, (1, 40, 1, 1), 16, 16),
    "channels of each image": ((2, 17, 4, 4), 16, (2, 17, 1, 1), 16, 16),
    "pixels": ((2, 40, 4, 4), 16, (2, 1, 4, 4), 16, 16),
    "plain channels": ((1, 5, 4, 4), 16, (5, 1, 1), 0, 16),
    "scalar": ((1, 5, 4, 4), 16, (), 0, 16),
    "plain and blocked": ((1, 17, 4, 4), 0, (1, 17, 4, 4), 16, 16),
    "blocked to plain": ((1, 17, 4, 4), 16, (1, 17, 4, 1), 16, 0),
    "plain": ((2, 3, 5, 7), 0, (3, 1, 1), 0, 0),
    "rows": ((3, 70), 0, (70,), 0, 0),
    "outer": ((3, 1), 0, (1, 5), 0, 0),
    "three channels": ((1, 3, 5, 7), 3, (1, 3, 5, 7), 3, 3),
    "sequence": ((1, 24, 9), 16, (24, 1), 0, 16),
}


@each_target
@pytest.mark.parametrize("pair", PAIRS)
def test_binary(pair, target):
    shape_a, block_a, shape_b, block_b, block = PAIRS[pair]
    shape = np.broadcast_shapes(shape_a, shape_b)
    spec = Binary("add", A, B, Epilogue(OUT, RELU6))
    out = stored(shape, block, (1, 2, 0, 1))
    check_binary(spec, stored(shape_a, block_a, (0, 1, 2, 0)), stored(shape_b, block_b), out, target)


@each_target
@pytest.mark.parametrize("kind", ["add", "subtract", "multiply"])
def test_kinds(kind, target):
    shape = (1, 24, 5, 3)
    for out in (Affine(0.05, 255), None):
        spec = Binary(kind, A, B, Epilogue(out, (-1.0, 2.0)))
        result = stored(shape, 16, dtype="uint8" if out else "float32")
        check_binary(spec, stored(shape, 16, (1, 1, 1, 1)), stored(shape, 16), result, target)
    spec = Binary(kind, None, None, Epilogue(None, (-0.5, np.inf)))
    plain = stored((3, 45), dtype="float32")
    check_binary(spec, plain, plain, plain, target)


@each_target
def test_float_channels(target):
    x = stored((1, 17, 3, 3), 16, (1, 0, 0, 1), "float32")
    spec = Binary("multiply", None, None, Epilogue(None))
    check_binary(spec, x, stored((17, 1, 1), dtype="float32"), x, target)


def test_threads_compute_the_same():
    shape = (1, 32, 60, 60)
    check_binary(
        Binary("add", A, B, Epilogue(OUT)),
        stored(shape, 16),
        stored(shape, 16, (1, 1, 1, 1)),
        stored(shape, 16, (0, 0, 1, 1)),
        VNNI.with_threads(2),
    )


@each_target
@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_lookup(dtype, target):
    rng = np.random.default_rng(0)
    rows = [target, target.extended("avx512vbmi")] if target.optional else [target]
    for row in rows:
        for shape, block, q in [((2, 24, 3, 5), 16, A), ((3, 100), 0, Affine(0.1, -3, "int8"))]:
            x, out = stored(shape, block, (0, 1, 0, 1), q.dtype), stored(shape, block, (1, 0, 2, 3), dtype)
            table = codes(rng, (256,)).astype(dtype)
            data = codes(rng, shape, q.dtype)
            spec = Lookup("f", q, None)
            result = run(lookup(spec, x, out, row), [(x, data), table], out, row)
            np.testing.assert_array_equal(result, oracle.lookup(spec, data, table))


@each_target
@pytest.mark.parametrize("bounds", [(0.0, np.inf), (0.0, 6.0), (-1.0, 1.0)])
def test_clip(bounds, target):
    shape = (1, 17, 4, 3)
    rng = np.random.default_rng(0)
    s = stored(shape, 16, (1, 0, 1, 0))
    data = codes(rng, shape)
    low, high = (np.clip(np.rint(np.float32(b) / np.float32(0.05)) + 100, 0, 255) for b in bounds)
    result = run(clip(bounds, Affine(0.05, 100), s, s, target), [(s, data)], s, target)
    np.testing.assert_array_equal(result, np.clip(data, low, high))
    low, high = sorted(max(0, min(255, b)) for b in bounds)
    result = run(clip(bounds, None, s, s, target), [(s, data)], s, target)
    np.testing.assert_array_equal(result, np.clip(data, low, high))
    real = stored((3, 37), dtype="float32")
    data = rng.standard_normal(real.shape, np.float32)
    np.testing.assert_array_equal(
        run(clip(bounds, None, real, real, target), [(real, data)], real, target), np.clip(data, *bounds)
    )
