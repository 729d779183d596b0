"""Depthwise convolutions on every row that this machine runs, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.passes.assign_storage import needed_border
from qcompile.targets.kernels.depthwise import Chunks, Strip, depthwise_conv2d, is_depthwise, legal_columns
from qcompile.targets.storage import Storage
from tests.targets.running import AVX2, FLOAT_ROWS, VNNI, each_row, stored
from tests.targets.weighted import FLOAT, INTEGER, OUT, X, check, constants_of, conv


def check_depthwise(row, shape, window, epilogue=INTEGER["codes"], columns=None, stores="", **options):
    n, c, *spatial = shape
    spec = conv(epilogue, groups=c, **options)
    (top, left, bottom, right), (sh, sw), (dh, dw) = spec.padding, spec.strides, spec.dilation
    h, w = spatial if len(spatial) == 2 else (1, *spatial)
    kh, kw = window if len(window) == 2 else (1, *window)
    extents = ((h + top + bottom - dh * (kh - 1) - 1) // sh + 1, (w + left + right - dw * (kw - 1) - 1) // sw + 1)
    out_shape = (n, c, *extents[2 - len(spatial) :])
    border = needed_border(spec, shape, (c, 1, *window), out_shape)
    x = Storage(shape, spec.activations, 16, border, X.zero_point if spec.x else 0)
    out, residual = stored(out_shape, 16, (1, 2, 3, 1), fill=OUT.zero_point), stored(out_shape, 16, (0, 1, 2, 0))
    out = stored(out_shape, 16, (1, 2, 3, 1), stores) if stores else out
    constants = constants_of(spec, (c, 1, *window), np.random.default_rng(0))
    return check(depthwise_conv2d, spec, constants, x, out, residual, row, tile=columns and Strip(columns))


CASES = {
    "3x3": ((1, 16, 8, 9), (3, 3), {"padding": (1, 1, 1, 1)}),
    "odd channels, batch, stride, asymmetric pads": (
        (2, 23, 7, 5), (3, 3), {"strides": (2, 2), "padding": (0, 1, 1, 0)},
    ),
    "5x5": ((1, 17, 6, 19), (5, 5), {"padding": (2, 2, 2, 2)}),
    "7x7, stride": ((1, 16, 9, 9), (7, 7), {"strides": (2, 2), "padding": (3, 3, 3, 3)}),
    "dilation": ((1, 18, 9, 9), (3, 3), {"dilation": (2, 2), "padding": (2, 2, 2, 2)}),
    "2x2, wide": ((1, 16, 3, 35), (2, 2), {}),
    "4x4": ((1, 16, 5, 7), (4, 4), {"padding": (1, 2, 2, 1)}),
    "1x1, stride": ((1, 16, 5, 5), (1, 1), {"strides": (2, 1)}),
    "one pixel": ((2, 5, 1, 1), (3, 3), {"padding": (1, 1, 1, 1)}),
    "sequence": ((2, 33, 21), (3,), {"strides": (1, 2), "padding": (0, 1, 0, 1)}),
}  # fmt: skip


@each_row
@pytest.mark.parametrize("name", CASES)
def test_codes(name, row):
    shape, window, options = CASES[name]
    check_depthwise(row, shape, window, **options)


@pytest.mark.parametrize("name", CASES)
def test_floats(name):
    shape, window, options = CASES[name]
    check_depthwise(AVX2, shape, window, FLOAT["float"], integer=False, **options)


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("weights", ["int8", "float16"])
@pytest.mark.parametrize("name", list(CASES)[:4])
def test_stored_weights(name, weights, row):
    shape, window, options = CASES[name]
    kernel = check_depthwise(row, shape, window, FLOAT["float"], integer=False, weights=weights, **options)
    assert kernel.constants[0].dtype == weights


@pytest.mark.parametrize(
    ("row", "stores"), [(AVX2, "float32"), (AVX2, "bfloat16"), (FLOAT_ROWS[0], "bfloat16")], ids=lambda a: str(a)[:30]
)
@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name, row, stores):
    shape, window, options = CASES[name]
    options = {**options, "integer": False, "weights": "bfloat16", "stores": stores}
    check_depthwise(row, shape, window, FLOAT["float, residual"], **options)


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("epilogue", [*INTEGER, *FLOAT])
def test_epilogues(epilogue, row):
    options = {"padding": (1, 1, 1, 1), "integer": epilogue in INTEGER}
    check_depthwise(row, (1, 18, 5, 6), (3, 3), (INTEGER | FLOAT)[epilogue], **options)


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_tile(data):
    """Also ones that cut a chunk's pixels."""
    h, w, kw, stride = (data.draw(st.integers(1, most)) for most in (3, 20, 4, 3))
    columns = data.draw(st.integers(1, 6))
    options = {"strides": (1, stride), "padding": (0, kw, 0, kw), "columns": columns}
    check_depthwise(AVX2, (1, 17, h, w), (1, kw), **options)


def test_legal_columns_fit_the_row_and_the_registers():
    assert legal_columns(5, AVX2) == [1, 2, 3, 4, 5]
    assert max(legal_columns(1000, AVX2)) <= AVX2.vector_registers


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
def test_threads(always_fork, row):
    kernel = check_depthwise(row.with_threads(2), (1, 40, 24, 24), (3, 3), padding=(1, 1, 1, 1))
    assert "T.parallel" in str(kernel.function)


@pytest.mark.parametrize(
    ("width", "stride", "dilation", "group", "taps", "shared"),
    [
        (3, 1, 1, 4, (0,), 2),  # both windows of three lie in one chunk of four
        (3, 2, 1, 4, (0,), 1),
        (2, 1, 1, 4, (0,), 3),
        (4, 1, 1, 4, (0,), 1),
        (5, 1, 1, 4, (0, 4), 1),
        (3, 1, 2, 4, (0,), 1),  # pixels of a dilated window are no neighbours
        (2, 1, 1, 2, (0,), 1),
        (3, 1, 1, 2, (0, 2), 1),
        (3, 1, 1, 1, (0, 1, 2), 1),  # float
    ],
)
def test_chunks(width, stride, dilation, group, taps, shared):
    assert Chunks.of(width, stride, dilation, group) == Chunks(group, taps, shared)


def test_taps_of_a_shared_chunk_move_on_by_the_stride():
    assert Chunks.of(3, 1, 1, 4).sources(3, 1) == [[0, 1, 2, None], [None, 0, 1, 2]]
    assert Chunks.of(2, 2, 1, 4).sources(2, 2) == [[0, 1, None, None], [None, None, 0, 1]]
    assert Chunks.of(5, 1, 1, 4).sources(5, 1) == [[0, 1, 2, 3], [4, None, None, None]]


def test_what_depthwise_is():
    assert is_depthwise(conv(INTEGER["codes"], groups=8), (8, 1, 3, 3))
    assert not is_depthwise(conv(INTEGER["codes"], groups=8), (16, 1, 3, 3))  # a multiplier of two
    assert not is_depthwise(conv(INTEGER["codes"], groups=1), (1, 1, 3, 3))
