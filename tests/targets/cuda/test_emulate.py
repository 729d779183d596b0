"""The emulation itself: it must see what a GPU would do wrong."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.errors import QCompileError
from qcompile.manifest import Launch
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import Program, templates

KERNELS = """
QC_KERNEL(64) reversed(const u8* x, u8* y) {
  QC_SHARED(memory);
  memory[threadIdx.x] = x[threadIdx.x];
  barrier();
  y[threadIdx.x] = memory[63 - threadIdx.x];
}
QC_KERNEL(64) unordered(const u8* x, u8* y) {
  QC_SHARED(memory);
  memory[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = memory[63 - threadIdx.x];
}
QC_KERNEL(64) fleeting(const u8* x, u8* y) {
  QC_SHARED(memory);
  u32 words[4];
  memory[threadIdx.x] = x[threadIdx.x];
  barrier();
  if (threadIdx.x < 32) {
    memory[threadIdx.x] ^= 255;
    load_matrices(words, memory);
    memory[threadIdx.x] ^= 255;
  } else {
    load_matrices(words, memory);
    y[threadIdx.x - 32] = memory[threadIdx.x - 32];
  }
}
QC_KERNEL(32) behind(const u8* x, u8* y) {
  QC_SHARED(memory);
  memory[4096 + threadIdx.x] = x[threadIdx.x];
}
QC_KERNEL(32) impatient(const u8* x, u8* y) {
  QC_SHARED(memory);
  copy_async<4>(memory + 4 * threadIdx.x, x + 4 * threadIdx.x);
  end_group();
  y[threadIdx.x] = memory[4 * threadIdx.x];
  copies_left<0>();
}
QC_KERNEL(32) patient(const u8* x, u8* y) {
  QC_SHARED(memory);
  copy_async<4>(memory + 4 * threadIdx.x, x + 4 * threadIdx.x);
  end_group();
  copies_left<0>();
  y[threadIdx.x] = memory[4 * threadIdx.x];
}
QC_KERNEL(32) misaligned(const u8* x, u8* y) {
  QC_SHARED(memory);
  copy_async<16>(memory + 4, x);
  copies_left<0>();
}
QC_KERNEL(32) divergent(const u8* x, u8* y) { if (threadIdx.x < 7) barrier(); }
QC_KERNEL(32) outside(const u8* x, u8* y) { y[-1 - int(threadIdx.x)] = 0; }
QC_KERNEL(32) far(const u8* x, u8* y) { y[0] = x[768 + threadIdx.x]; }
QC_KERNEL(32) between(const u8* x, u8* y) { y[0] = static_cast<u8>(*reinterpret_cast<const u32*>(x + threadIdx.x)); }
QC_KERNEL(32) products(const u8* x, u8* y) {
  QC_SHARED(memory);
  const int lane = threadIdx.x;
  for (int i = lane; i < 768; i += 32) memory[i] = x[i];
  barrier();
  u32 a[4], b[4];
  load_matrices(a, memory + lane % 16 * 32 + lane / 16 * 16);
  load_matrices(b, memory + 512 + lane % 8 * 32 + lane / 8 % 2 * 16);
  int sums[4] = {};
  multiply<false>(sums, a, {b[0], b[1]});
  for (int i = 0; i < 4; ++i) reinterpret_cast<int*>(y)[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}
"""


@pytest.fixture(scope="module")
def emulated():
    return Emulated(templates() + KERNELS, optimize=0)


def call(emulated, kernel: str, x: np.ndarray, size: int = 64, block: int = 32, order: int = 0) -> np.ndarray:
    launch = Launch(kernel, 1, block, 4096, (("input0", 0), ("output0", 0)))
    y = np.zeros(size, np.uint8)
    emulated.run(Program("", (launch,), np.zeros(0, np.uint8), 0), [x], [y], order)
    return y


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8)


@pytest.mark.parametrize("order", range(6))
def test_threads_meet_at_barriers(emulated, x, order):
    np.testing.assert_array_equal(call(emulated, "reversed", x, block=64, order=order), x[63::-1])


def test_a_missing_barrier_shows(emulated, x):
    assert any(not np.array_equal(call(emulated, "unordered", x, block=64, order=order), x[63::-1]) for order in (0, 1))


def test_what_is_there_for_a_moment_shows_where_warps_are_mixed(emulated, x):
    equal = [np.array_equal(call(emulated, "fleeting", x, block=64, order=n)[:32], x[:32]) for n in range(16)]
    assert equal[:2] == [True, True] and not all(equal)


def test_copies_are_there_once_they_are_waited_for(emulated, x):
    np.testing.assert_array_equal(call(emulated, "patient", x)[:32], x[:128:4])
    assert not np.array_equal(call(emulated, "impatient", x)[:32], x[:128:4])


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        ("misaligned", "misaligned: a copy outside of shared memory, or not aligned"),
        ("divergent", "divergent: lanes of a warp part ways"),
        ("behind", "behind: a write behind shared memory"),
        ("outside", "outside writes outside of output0"),
        ("far", "far: an access outside of every buffer"),
        ("between", "between: an access that is not aligned"),
    ],
)
def test_what_a_gpu_would_not_do_is_refused(emulated, x, kernel, reason):
    with pytest.raises(QCompileError, match=reason):
        call(emulated, kernel, x)
    np.testing.assert_array_equal(call(emulated, "patient", x)[:32], x[:128:4])  # the next kernel is as good as ever


def test_matrix_products(emulated, x):
    got = call(emulated, "products", x, size=4 * 128).view(np.int32).reshape(16, 8)
    weights = x[512:].view(np.int8).reshape(8, 32).astype(np.int32)
    np.testing.assert_array_equal(got, x[:512].reshape(16, 32).astype(np.int32) @ weights.T)
