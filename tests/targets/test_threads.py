"""With two threads, every kernel that splits its work computes what one thread does."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import Affine, AvgPool2d, ChannelShuffle, Epilogue, Lookup, Mean, Softmax
from qcompile.reference.arithmetic import pool_multipliers
from qcompile.reference.elementwise import exponentials
from qcompile.targets.kernels import parallel
from qcompile.targets.kernels.elementwise import lookup
from qcompile.targets.kernels.movement import channel_shuffle, join, take
from qcompile.targets.kernels.pool import avg_pool2d, max_pool2d
from qcompile.targets.kernels.quantize import dequantize
from qcompile.targets.kernels.reduce import mean
from qcompile.targets.kernels.reindex import permute_dims
from qcompile.targets.kernels.softmax import softmax
from tests.targets.running import AVX2, codes, compile_kernel, run, stored

Q, OUT = Affine(0.02, 128), Affine(0.01, 3)
X = stored((1, 40, 64, 30), 16, (1, 1, 1, 1))
PLAIN, F = stored(X.shape), stored(X.shape, dtype="float32")
M, L = stored((1, 40)), stored((1, 64, 30, 40))
REFLECT = [*range(10, 0, -1), *range(54)]
CASES = {
    "lookup": (lambda t: lookup(Lookup("f", Q, OUT), PLAIN, PLAIN, t), PLAIN, [np.arange(256, dtype=np.uint8)], PLAIN),
    "max_pool2d": (lambda t: max_pool2d((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), X, X, t), X, [], X),
    "avg_pool2d": (
        lambda t: avg_pool2d(AvgPool2d((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), False, False, Q, Epilogue(OUT)), X, X, t),
        X,
        [pool_multipliers(Q, 9, OUT)],
        X,
    ),
    "mean": (lambda t: mean(Mean((2, 3), False, Q, Epilogue(OUT)), X, M, t), X, [], M),
    "channel_shuffle": (lambda t: channel_shuffle(ChannelShuffle(2), X, X, t), X, [], X),
    "take": (lambda t: take((None, None, REFLECT, None), X, X, t), X, [], X),
    "softmax": (lambda t: softmax(Softmax(-1, Q, Epilogue(OUT)), PLAIN, PLAIN, t), PLAIN, [exponentials(Q)], PLAIN),
    "dequantize": (lambda t: dequantize(Q, X, F, t), X, [], F),
    "join": (lambda t: join(1, X, out=X, target=t), X, [], X),
    "permute_dims": (lambda t: permute_dims((0, 2, 3, 1), X, L, t), X, [], L),
}


@pytest.mark.parametrize("name", CASES)
def test_two_threads(name, monkeypatch):
    monkeypatch.setattr(parallel, "_WAKE_CYCLES", 1000)  # so that small tensors do
    make, x, rest, out = CASES[name]
    data = codes(np.random.default_rng(0), x.shape)
    two = make(AVX2.with_threads(2))
    assert "T.parallel" in str(two)
    one, other = (run(kernel, [(x, data), *rest], out, AVX2) for kernel in (make(AVX2), two))
    np.testing.assert_array_equal(one, other)


def test_little_work_stays_on_one_thread():
    small = stored((1, 16, 8, 8), 16)
    kernel = max_pool2d((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), small, small, AVX2.with_threads(2))
    assert "T.parallel" not in str(kernel)
    compile_kernel(kernel, AVX2)
