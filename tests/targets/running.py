"""Runs one kernel on logical arrays: stored as it expects them, slack poisoned, borders and slack checked after."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm.ir import IRModule

from qcompile.targets.select import can_run
from qcompile.targets.storage import SLACK, Storage
from qcompile.targets.x86 import ROWS

VNNI, AVX2 = ROWS[0], ROWS[-1]
TARGETS = [VNNI, AVX2]
FLOAT_ROWS = [VNNI.extended("avx512_bf16"), VNNI, AVX2]  # that differ in how they compute on floats


def poison(dtype: str) -> float:
    """What no kernel may let through to a result."""
    if dtype == "uint16":
        return 0x7FC1  # of bfloat16 a NaN
    return np.nan if np.dtype(dtype).kind == "f" else 0xA5 - (256 if dtype == "int8" else 0)


def memory(flat: np.ndarray, writable: bool = False) -> tuple[tvm.runtime.Tensor, tvm.runtime.Tensor]:
    """A buffer with SLACK bytes behind its end: (all of it, what the kernel is given)."""
    slack = SLACK // flat.itemsize
    whole = tvm.runtime.tensor(np.concatenate([flat, np.full(slack, poison(str(flat.dtype)), flat.dtype)]))
    return whole, whole._create_view((flat.size,))


def poisoned(storage: Storage, logical: np.ndarray) -> np.ndarray:
    """``logical`` stored; channels that pad a block hold poison."""
    flat = storage.store(logical)
    if storage.blocked:
        n, c, *spatial = storage.shape
        worst, dtype = (np.nan, "float32") if storage.is_float else (poison(storage.dtype), storage.dtype)
        filled = np.full((n, storage.blocks * storage.block, *spatial), worst, dtype)
        filled[:, :c] = logical
        wide = Storage(filled.shape, storage.dtype, storage.block, storage.border, storage.fill)
        flat = wide.store(filled)
    return flat


def compile_kernel(function, target):
    return tvm.compile(IRModule({"main": function.with_attr("global_symbol", "main")}), target.tvm_target())["main"]


def run(function, inputs, out: Storage, target) -> np.ndarray:
    """The logical output. inputs: (Storage, logical array) pairs and plain arrays, in the kernel's order.

    Skips the test where this CPU cannot run the target.
    """
    if not can_run(target):
        pytest.skip(f"this CPU cannot run {target.name}")
    flats = [poisoned(*x) if isinstance(x, tuple) else np.ascontiguousarray(x).reshape(-1) for x in inputs]
    held = [memory(flat) for flat in flats]
    whole, y = memory(np.full(out.numel, poison(out.bits), out.bits))
    compile_kernel(function, target)(*(view for _, view in held), y)
    flat = whole.numpy()
    np.testing.assert_array_equal(flat[out.numel :], np.full(SLACK // flat.itemsize, poison(out.bits), out.bits))
    check_border(flat[: out.numel], out)
    return np.array(out.view(flat))


def check_border(flat: np.ndarray, s: Storage) -> None:
    """The border holds ``fill``."""
    if not s.blocked:
        return
    n, _, h, w = s.image
    top, left, bottom, right = s.border
    full = flat.reshape(n, s.blocks, h + top + bottom, w + left + right, s.block)
    outside = np.ones(full.shape, bool)
    outside[:, :, top : top + h, left : left + w] = False
    np.testing.assert_array_equal(full[outside], np.dtype(s.bits).type(s.fill))


def codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    """Random codes, the extreme ones often."""
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max + 1, shape)
    extreme = rng.choice([info.min, info.max], shape)
    return np.where(rng.random(shape) < 0.1, extreme, values).astype(dtype)


def stored(shape, block=0, border=(0, 0, 0, 0), dtype="uint8", fill=7) -> Storage:
    """A Storage; plain ones have no border, sequences none above and below, borders of floats hold 0."""
    if not block:
        return Storage(shape, dtype)
    if len(shape) == 3:
        border = (0, border[1], 0, border[3])
    return Storage(shape, dtype, block, border, 0 if "float" in dtype else fill)


def each_target(test):
    return pytest.mark.parametrize("target", TARGETS, ids=lambda row: row.name)(test)


def each_row(test):
    return pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)(test)
