"""Operators that move elements, against numpy: channel counts that cross blocks, every storage, both targets."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import Affine, ChannelShuffle, Concat
from qcompile.reference import elementwise as oracle
from qcompile.targets.kernels.movement import (
    channel_shuffle,
    concat,
    join,
    pad_constant,
    strided_slice,
    take,
)
from tests.targets.running import AVX2, VNNI, codes, each_target, run, stored

BORDER = (1, 0, 2, 1)
STORAGES = pytest.mark.parametrize(
    ("block", "out_block", "target"),
    [(16, 16, VNNI), (16, 16, AVX2), (0, 0, VNNI), (16, 0, VNNI), (0, 16, VNNI)],
    ids=["blocked", "blocked-avx2", "plain", "to-plain", "to-blocked"],
)
KINDS = pytest.mark.parametrize(("dtype", "target"), [("uint8", VNNI), ("float32", AVX2)], ids=["uint8", "float32"])


def data_for(shape, dtype="uint8", seed=0):
    return codes(np.random.default_rng(seed), shape).astype(dtype)


@STORAGES
@pytest.mark.parametrize("channels", [(16, 32), (5, 17, 24), (40, 3), (1, 1, 1)], ids=str)
def test_concat_of_channels(channels, block, out_block, target):
    inputs = [data_for((2, c, 3, 5), seed=i) for i, c in enumerate(channels)]
    storages = [stored(x.shape, block, (0, i, 1, 0)) for i, x in enumerate(inputs)]
    expected = np.concatenate(inputs, 1)
    out = stored(expected.shape, out_block, BORDER)
    kernel = join(1, *storages, out=out, target=target)
    np.testing.assert_array_equal(run(kernel, list(zip(storages, inputs, strict=True)), out, target), expected)


@pytest.mark.parametrize("axis", [0, 2, -1])
@pytest.mark.parametrize("block", [0, 3, 16])
def test_concat_along_other_axes(axis, block):
    inputs = [data_for((2, 3, 4, 5), "float32", seed=i) for i in range(3)]
    storages = [stored(x.shape, block, BORDER, "float32") for x in inputs]
    expected = np.concatenate(inputs, axis)
    out = stored(expected.shape, block, BORDER, "float32")
    kernel = join(axis, *storages, out=out, target=AVX2)
    np.testing.assert_array_equal(run(kernel, list(zip(storages, inputs, strict=True)), out, AVX2), expected)


@each_target
@pytest.mark.parametrize("block", [0, 16])
def test_concat_requantizes(block, target):
    q = (Affine(0.02, 128), Affine(0.03, 3), Affine(0.01, 255))
    inputs = [data_for((1, c, 3, 5), seed=c) for c in (17, 16, 5)]
    storages = [stored(x.shape, block) for x in inputs]
    spec = Concat(1, q, q[1])
    expected = oracle.concat(spec, *inputs)
    out = stored(expected.shape, block, BORDER)
    kernel = concat(spec, *storages, out=out, target=target)
    np.testing.assert_array_equal(run(kernel, list(zip(storages, inputs, strict=True)), out, target), expected)


@STORAGES
@pytest.mark.parametrize(
    "where",
    [
        (slice(None), slice(16, 48), slice(None), slice(None)),
        (slice(None), slice(5, 40), slice(None), slice(None)),
        (slice(1, 2), slice(3, 48, 3), slice(1, 6, 2), slice(None)),
        (slice(None), slice(47, 2, -4), slice(6, None, -1), slice(2, 5)),
    ],
    ids=range(4),
)
def test_slice(where, block, out_block, target):
    x = data_for((2, 48, 7, 5))
    expected = x[where]
    begin, _, strides = zip(*(s.indices(n) for s, n in zip(where, x.shape, strict=True)), strict=True)
    source, out = stored(x.shape, block, (0, 1, 0, 0)), stored(expected.shape, out_block, BORDER)
    kernel = strided_slice(begin, strides, source, out, target)
    np.testing.assert_array_equal(run(kernel, [(source, x)], out, target), expected)


def test_plain_floats_into_a_block():
    inputs = [data_for((1, c, 2, 3), "float32") for c in (5, 6)]
    storages = [stored(x.shape, block, dtype="float32") for x, block in zip(inputs, (0, 16), strict=True)]
    out = stored((1, 11, 2, 3), 16, BORDER, "float32")
    kernel = join(1, *storages, out=out, target=AVX2)
    result = run(kernel, list(zip(storages, inputs, strict=True)), out, AVX2)
    np.testing.assert_array_equal(result, np.concatenate(inputs, 1))


def test_slice_of_a_matrix():
    x = data_for((3, 4, 70), "float32")
    source, out = stored(x.shape, dtype="float32"), stored((3, 2, 33), dtype="float32")
    kernel = strided_slice((0, 1, 37), (1, 2, 1), source, out, VNNI)
    np.testing.assert_array_equal(run(kernel, [(source, x)], out, VNNI), x[:, 1::2, 37:])


@each_target
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 24, 3, 5), 2), ((1, 116, 2, 2), 2), ((1, 48, 4, 3), 3), ((1, 40, 6), 4)]
)
@pytest.mark.parametrize("block", [0, 16])
def test_channel_shuffle(shape, groups, block, target):
    x = data_for(shape)
    source, out = stored(shape, block, (0, 1, 0, 0)), stored(shape, block, BORDER)
    spec = ChannelShuffle(groups)
    result = run(channel_shuffle(spec, source, out, target), [(source, x)], out, target)
    np.testing.assert_array_equal(result, oracle.channel_shuffle(spec, x))


@KINDS
@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_take_pads(mode, block, dtype, target):
    x = data_for((1, 17, 4, 5), dtype)
    indices = [None, None, *(np.pad(np.arange(n), p, mode) for n, p in ((4, (2, 1)), (5, (0, 3))))]
    expected = np.pad(x, ((0, 0), (0, 0), (2, 1), (0, 3)), mode)
    source, out = stored(x.shape, block, (1, 1, 1, 1), dtype), stored(expected.shape, block, BORDER, dtype)
    result = run(take(indices, source, out, target), [(source, x)], out, target)
    np.testing.assert_array_equal(result, expected)


@STORAGES
def test_take_resizes(block, out_block, target):
    x = data_for((2, 17, 3, 5))
    indices = [None, None, np.arange(6) // 2, np.arange(15) // 3]
    expected = x[:, :, indices[2]][:, :, :, indices[3]]
    source, out = stored(x.shape, block, (1, 1, 1, 1)), stored(expected.shape, out_block, BORDER)
    result = run(take(indices, source, out, target), [(source, x)], out, target)
    np.testing.assert_array_equal(result, expected)


@KINDS
@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("pads", [((0, 0), (0, 0), (1, 2), (3, 0)), ((1, 0), (5, 12), (0, 1), (0, 0))], ids=str)
def test_pad_constant(pads, block, dtype, target):
    x = data_for((1, 24, 4, 5), dtype)
    expected = np.pad(x, pads, constant_values=9)
    source, out = stored(x.shape, block, (1, 1, 1, 1), dtype), stored(expected.shape, block, BORDER, dtype)
    if block and pads[0] != (0, 0):
        pads = (0, 0), *pads[1:]
        expected = np.pad(x, pads, constant_values=9)
        out = stored(expected.shape, block, BORDER, dtype)
    result = run(pad_constant([a for a, _ in pads], 9.0, source, out, target), [(source, x)], out, target)
    np.testing.assert_array_equal(result, expected)


def test_pad_constant_between_blocks():
    x = data_for((1, 17, 3, 2), "float32")
    expected = np.pad(x, ((0, 0), (3, 0), (1, 0), (0, 2)), constant_values=9)
    source, out = stored(x.shape, 4, dtype="float32"), stored(expected.shape, 16, BORDER, "float32")
    result = run(pad_constant((0, 3, 1, 0), 9.0, source, out, AVX2), [(source, x)], out, AVX2)
    np.testing.assert_array_equal(result, expected)
