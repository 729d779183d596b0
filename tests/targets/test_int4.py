"""Layers with int4 weights by groups on every row that this machine runs, against the oracle: of codes to the bit."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.ops import Dense
from qcompile.passes.assign_storage import needed_border
from qcompile.targets.kernels.conv import Constants
from qcompile.targets.kernels.int4 import conv2d_int4, dense_int4, pack_nibbles, pack_scales
from qcompile.targets.kernels.reduction import Runs, dense_reduction
from qcompile.targets.kernels.tiling import Tile
from qcompile.targets.storage import Storage
from tests.targets.running import AVX2, VNNI, each_row, stored
from tests.targets.weighted import FLOAT, INTEGER, OUT, X, check, constants_of, conv

SHAPES = [((1, 64), 8, 32), ((1, 8), 130, 8), ((3, 96), 10, 32), ((5, 128), 17, 64), ((2, 3, 40), 5, 8)]
SHAPES += [((40, 72), 65, 24), ((16,), 1, 16)]


def grouped_constants(spec, shape):
    rng = np.random.default_rng(0)
    plain = constants_of(replace(spec, weights="int8", group=0), shape, rng)
    weight = rng.integers(-7, 8, shape).astype(np.int8)  # around zero, so that few results saturate
    weight[:, 0] = -8
    scales = rng.integers(1, 256, (shape[0], prod(shape[1:]) // spec.group)).astype(np.uint8)
    scales[:, 0] = 255
    return Constants(weight, plain.bias, plain.multiplier / 40, scales)


def check_int4(row, shape, outputs, group, epilogue=INTEGER["codes"], tile=None, integer=True):
    spec, inputs = Dense(X if integer else None, epilogue, group), shape[-1]
    x, out = stored(shape, dtype=spec.activations), stored((*shape[:-1], outputs))
    return check(dense_int4, spec, grouped_constants(spec, (outputs, inputs)), x, out, out, row, tile=tile)


def check_conv(row, shape, weight_shape, group, epilogue=INTEGER["codes"], tile=None, **options):
    spec = replace(conv(epilogue, **options), weights="int4", group=group)
    (top, left, bottom, right), (sh, sw), (dh, dw) = spec.padding, spec.strides, spec.dilation
    n, _, h, w = shape
    kh, kw = weight_shape[2:]
    extents = ((h + top + bottom - dh * (kh - 1) - 1) // sh + 1, (w + left + right - dw * (kw - 1) - 1) // sw + 1)
    out_shape = (n, weight_shape[0], *extents)
    border = needed_border(spec, shape, weight_shape, out_shape)
    x = Storage(shape, spec.activations, 16, border, X.zero_point if spec.x else 0)
    out, residual = stored(out_shape, 16, (1, 2, 3, 1), fill=OUT.zero_point), stored(out_shape, 16, (0, 1, 2, 0))
    constants = grouped_constants(spec, weight_shape)
    return check(conv2d_int4, spec, constants, x, out, residual, row, tile=tile)


CONVOLUTIONS = {
    "pointwise": ((2, 64, 5, 3), (24, 64, 1, 1), 32, {}),
    "pointwise, stride": ((1, 32, 6, 7), (40, 32, 1, 1), 16, {"strides": (2, 2)}),
    "3x3": ((1, 32, 8, 8), (16, 32, 3, 3), 32, {"padding": (1, 1, 1, 1)}),
    "half blocks, odd channels out, asymmetric pads": ((2, 16, 7, 5), (37, 16, 3, 3), 8, {"padding": (0, 1, 1, 0)}),
    "all channels, dilation": ((1, 48, 7, 7), (16, 48, 3, 3), 48, {"dilation": (2, 3), "padding": (2, 3, 2, 3)}),
    "groups of channels": ((1, 128, 4, 4), (32, 64, 3, 1), 32, {"groups": 2, "padding": (1, 0, 1, 0)}),
    "one pixel": ((1, 32, 1, 1), (33, 32, 1, 1), 32, {}),
}


@each_row
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, row):
    shape, weight, group, options = CONVOLUTIONS[name]
    check_conv(row, shape, weight, group, **options)


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_of_floats(name, row):
    shape, weight, group, options = CONVOLUTIONS[name]
    check_conv(row, shape, weight, group, FLOAT["float, residual"], integer=False, **options)


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("tile", [(1, 1, 1), (2, 3, 1), (1, 4, 2)], ids=str)
def test_tiles_of_convolutions(tile, row):
    check_conv(row, (2, 32, 5, 7), (37, 32, 3, 3), 32, tile=Tile(*tile), padding=(1, 1, 1, 1))


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize(("shape", "outputs", "group"), SHAPES)
def test_floats(shape, outputs, group, row):
    check_int4(row, shape, outputs, group, FLOAT["float"], integer=False)


@each_row
@pytest.mark.parametrize(("shape", "outputs", "group"), SHAPES)
def test_codes(shape, outputs, group, row):
    check_int4(row, shape, outputs, group)


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("epilogue", INTEGER)
def test_epilogues(epilogue, row):
    check_int4(row, (4, 32), 21, 16, INTEGER[epilogue])


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("tile", [(1, 1), (1, 3), (4, 2), (6, 1)], ids=str)
def test_explicit_tiles_and_their_remainders(tile, outer, row):
    check_int4(row, (7, 24), 37, 8, tile=Tile(1, *tile, outer))


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_any_size_and_tile(data):
    rows, groups, columns, vectors = (data.draw(st.integers(1, most)) for most in (9, 3, 6, 3))
    outputs = data.draw(st.integers(9, 70))
    group = data.draw(st.sampled_from((8, 16, 32, 40)))
    tile = Tile(1, columns, vectors, data.draw(st.booleans()))
    check_int4(AVX2, (rows, groups * group), outputs, group, tile=tile)


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1024, 300), (60, 64, 75)])
def test_threads(always_fork, rows, inputs, outputs, outer):
    """One row is shared by output channels."""
    tile = Tile(1, min(rows, 4), 2, outer)
    kernel = check_int4(AVX2.with_threads(2), (rows, inputs), outputs, 32, tile=tile)
    assert "T.parallel" in str(kernel.function)


@each_row
def test_the_default_tile_leaves_registers_for_the_sums_of_a_group(row):
    kernel = check_int4(row, (64, 64), 256, 32)
    _, columns, channels = kernel.note.split()[-1].split("x")
    assert 2 * int(columns) * int(channels) // row.lanes <= row.vector_registers


def test_a_byte_holds_a_step_and_the_next():
    reduction = dense_reduction(1, 8, 2, False, Runs(4, exact=False))
    packed = np.array([1, 2, 3, 4, -1, -2, -3, -4, 5, 6, 7, 0, -5, -6, -7, -8], np.int8)  # step, channel, element
    got = pack_nibbles(packed, reduction, [2]).view(np.uint8)
    assert got.tolist() == [0x51, 0x62, 0x73, 0x04, 0xBF, 0xAE, 0x9D, 0x8C]


def test_scales_go_by_tile_then_group():
    scales = np.array([[1, 2], [3, 4], [5, 6]], np.uint8)
    assert pack_scales(scales, [2, 2]).tolist() == [1, 3, 2, 4, 5, 0, 6, 0]


def test_weights_take_half_a_byte():
    kernel = check_int4(VNNI, (2, 64), 32, 32)
    weight, scales = kernel.constants[:2]
    assert weight.nbytes == 32 * 64 // 2 and scales.nbytes == 32 * 2
