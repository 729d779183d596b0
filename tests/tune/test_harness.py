"""A library of candidates: which of them run, how often, on which copy of their constants."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from qcompile.compile import compile_module
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.conv import Kernel
from qcompile.targets.select import can_run
from qcompile.targets.storage import SLACK, Storage
from qcompile.targets.x86 import ROWS
from qcompile.tune.harness import MAIN, SPREAD, Layout, Packing, harness

AVX2 = ROWS[-1]
OUT = Storage((8,), "int64")
pytestmark = pytest.mark.skipif(not can_run(AVX2), reason="this CPU cannot run AVX2")


def counting(candidate: int, constants: np.ndarray) -> Kernel:
    """A kernel that appends to y: y[0] counts, then candidate and the first of its constants, by turns."""

    def body(x, c, y):
        n = b.bind(y[0])
        b.store(y, n * 2 + 1, b.cast("int64", x[0], 1) * 0 + candidate, 1)
        b.store(y, n * 2 + 2, c[0], 1)
        b.store(y, 0, n + 1, 1)

    buffers = [("x", "uint8", 4), ("c", "int64", constants.size), ("y", "int64", 1000)]
    return Kernel(b.kernel(f"counting{candidate}", buffers, body), (constants,), "")


def runner(kernels):
    made = harness(kernels, Storage((4,), "uint8"), Storage((1000,), "int64"), None)
    library = compile_module(made.module, AVX2)

    def run(active, rounds, repeat, layout, marks=True):
        """(candidate, copy) of every call, and the stamps; each copy's first constant is set to its number."""
        weights = tvm.runtime.tensor(np.zeros(layout.size, np.uint8))
        table = tvm.runtime.tensor(np.array(layout.copies, np.int64).reshape(-1))
        library[SPREAD](tvm.runtime.tensor(made.constants), weights, table)
        filled = weights.numpy()
        for packing in set(made.packings):
            start, copies = layout.copies[packing.number]
            for copy in range(copies):
                at = start + copy * packing.size
                here = filled[at : at + packing.size]
                np.testing.assert_array_equal(here, made.constants[packing.start : packing.start + packing.size])
                filled[at : at + 8] = np.frombuffer(np.int64(copy).tobytes(), np.uint8)
        weights = tvm.runtime.tensor(filled)
        x = tvm.runtime.tensor(np.zeros(4 + SLACK, np.uint8))
        y = tvm.runtime.tensor(np.zeros(1000 + SLACK // 8, np.int64))
        stamps = tvm.runtime.tensor(np.zeros(rounds * len(kernels) * 4, np.int64))
        library[MAIN](sum(1 << i for i in active), rounds, repeat, x, y, weights, table, stamps)
        log = y.numpy()
        return [tuple(map(int, log[2 * i + 1 : 2 * i + 3])) for i in range(log[0])], stamps.numpy().reshape(
            rounds, len(kernels), 2, 2
        )

    return made, run


def test_active_candidates_take_turns():
    constants = [np.arange(100, 120), np.arange(200, 220), np.arange(300, 310)]
    _, run = runner([counting(i, c) for i, c in enumerate(constants)])
    layout = Layout(((0, 2), (1000 * 64, 3), (2000 * 64, 1)), 3000 * 64)
    calls, stamps = run([0, 2], 3, 2, layout)
    turn = [0, 0, 2, 2]
    assert [candidate for candidate, _ in calls] == turn * 3
    assert [copy for candidate, copy in calls if candidate == 0] == [0, 1, 0, 1, 0, 1]
    assert [copy for candidate, copy in calls if candidate == 2] == [0] * 6
    seconds = stamps[..., 0] + stamps[..., 1] * 1e-9
    assert (stamps[:, 1] == 0).all()  # not active
    in_order = seconds[:, [0, 2]].reshape(-1)
    assert (np.diff(in_order) >= 0).all() and in_order[-1] - in_order[0] < 10


def test_repeated_calls_are_not_optimized_away():
    """A small kernel that is inlined would run once only; the candidate's result is shown to a foreign function."""
    made, _ = runner([counting(i, np.arange(9)) for i in range(3)])
    text = str(made.module[MAIN])
    assert text.count("pthread_self") == 3 and text.count("candidate_") == 3


def test_equal_constants_are_shared():
    """Two candidates with the same packing walk through its copies together."""
    same = np.arange(50)
    made, run = runner([counting(0, same), counting(1, same.copy()), counting(2, np.arange(9))])
    assert [p.number for p in made.packings] == [0, 0, 1]
    assert made.constants.size == 448 + 128  # 400 and 72 bytes in whole cache lines
    calls, _ = run([0, 1], 3, 1, Layout(((0, 3), (10_000, 1)), 20_000))
    assert calls == [(0, 0), (1, 1), (0, 2), (1, 0), (0, 1), (1, 2)]


def test_constants_of_the_others_lie_between_two_uses():
    small, large = Packing(0, 0, 100, (0,)), Packing(1, 100, 700, (0,))
    packings = [small, large, small]
    for active in ([0], [1], [0, 1], [0, 1, 2], [0, 2]):
        for footprint in (0, 1, 1000, 12345):
            layout = Layout.of(packings, active, footprint)
            turn = sum(packings[i].size for i in active)
            for packing in (small, large):
                users = sum(packings[i] == packing for i in active)
                start, copies = layout.copies[packing.number]
                assert copies >= 1 and start + copies * packing.size <= layout.size - SLACK
                assert not users or copies / users * turn >= footprint
                assert copies == 1 or np.gcd(copies, users) == 1
    assert Layout.of(packings, [1], 0).copies == ((0, 1), (100, 1))
