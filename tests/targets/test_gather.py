"""Rows of codes against the oracle: widths around vectors, negative indices, indices out of range."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import Gather
from qcompile.reference.elementwise import gather as oracle
from qcompile.targets.kernels.gather import gather, pack_rows
from qcompile.targets.storage import Storage
from tests.targets.running import codes, each_target, run


@each_target
@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize(("width", "addend_rows"), [(1, 0), (5, 0), (32, 0), (47, 3), (64, 6), (129, 1)])
def test_gather(width, addend_rows, dtype, target):
    rng = np.random.default_rng(width)
    table, scale = codes(rng, (11, width), "int8"), rng.uniform(0, 1, 11).astype(np.float32)
    indices = np.array([[0, 10, -1], [-11, 11, 12345]], dtype)
    addend = [codes(rng, (addend_rows, width), "int8"), rng.uniform(0, 1, addend_rows).astype(np.float32)]
    addend = addend if addend_rows else []
    expected = oracle(Gather(), table, scale, indices, *addend)
    source, out = Storage(indices.shape, dtype), Storage(expected.shape, "float32")
    kernel = gather(table.shape, addend_rows, source, out, target)
    result = run(kernel, [(source, indices), table, scale, *addend], out, target)
    np.testing.assert_array_equal(result, expected)


@each_target
@pytest.mark.parametrize(("width", "addend_rows"), [(1, 0), (47, 3), (64, 6)])
def test_float16(width, addend_rows, target):
    rng, indices = np.random.default_rng(width), np.array([[0, 10, -1], [-11, 11, 12345]])
    table = rng.standard_normal((11, width)).astype(np.float16)
    addend = [rng.standard_normal((addend_rows, width)).astype(np.float16), np.ones(addend_rows, np.float32)]
    args = [np.ones(11, np.float32), *(addend if addend_rows else [])]
    expected = oracle(Gather(), table, args[0], indices, *args[1:])
    np.testing.assert_array_equal(expected[0, 1], table[10].astype(np.float32) + (addend[0][1] if addend_rows else 0))
    source, out = Storage(indices.shape, "int64"), Storage(expected.shape, "float32")
    kernel = gather(table.shape, addend_rows, source, out, target, dtype="float16")
    np.testing.assert_array_equal(run(kernel, [(source, indices), table, *args], out, target), expected)


@each_target
@pytest.mark.parametrize(("width", "addend_rows", "group"), [(8, 0, 8), (64, 3, 32), (96, 1, 48), (128, 2, 128)])
def test_int4_by_groups(width, addend_rows, group, target):
    rng = np.random.default_rng(width)
    table, scale = rng.integers(-8, 8, (11, width)).astype(np.int8), rng.uniform(0, 1, 11).astype(np.float32)
    steps = rng.integers(1, 256, (11, width // group)).astype(np.uint8)
    indices = np.array([[0, 10, -1], [-11, 11, 12345]])
    addend = [codes(rng, (addend_rows, width), "int8"), rng.uniform(0, 1, addend_rows).astype(np.float32)]
    addend = addend if addend_rows else []
    expected = oracle(Gather(group), table, scale, indices, steps, *addend)
    source, out = Storage(indices.shape, "int64"), Storage(expected.shape, "float32")
    kernel = gather(table.shape, addend_rows, source, out, target, group)
    packed = pack_rows(table, group)
    assert packed.nbytes == table.size // 2
    result = run(kernel, [(source, indices), packed, scale, steps, *addend], out, target)
    np.testing.assert_array_equal(result, expected)


def test_the_halves_of_a_group_share_its_bytes():
    table = np.array([[1, 2, -1, -2, 3, 4, 5, -8]], np.int8)
    assert pack_rows(table, 4).view(np.uint8).tolist() == [[0xF1, 0xE2, 0x53, 0x84]]


def test_the_oracle_scales_groups():
    table, scale = np.array([[1, -8, 7, 2]], np.int8), np.array([0.5], np.float32)
    result = oracle(Gather(2), table, scale, np.array([0]), np.array([[10, 255]], np.uint8))
    assert result.dtype == np.float32 and result.tolist() == [[5, -40, 892.5, 255]]


def test_the_oracle_is_the_definition():
    table, scale = np.array([[1, -128], [3, 127]], np.int8), np.array([0.5, 0.25], np.float32)
    addend, addend_scale = np.array([[1, 2], [3, 4], [5, 6]], np.int8), np.array([1, 10, 100], np.float32)
    result = oracle(Gather(), table, scale, np.array([0, 1, -1, 2, -3, 5]), addend, addend_scale)
    expected = [[1.5, -62], [30.75, 71.75], [500.75, 631.75], [1.5, -62], [30.75, 71.75], [500.75, 631.75]]
    assert result.dtype == np.float32 and result.tolist() == expected
