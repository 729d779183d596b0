"""Convolutions that are not depthwise, on every row that this machine runs, against the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.passes.assign_storage import needed_border
from qcompile.targets.kernels.conv import conv2d
from qcompile.targets.kernels.dilate import dilate
from qcompile.targets.kernels.tiling import Tile
from qcompile.targets.storage import Storage
from tests.targets.running import AVX2, FLOAT_ROWS, VNNI, codes, each_row, run, stored
from tests.targets.weighted import FLOAT, INTEGER, OUT, X, check, constants_of, conv

BORDER = (1, 2, 3, 1)  # that the next layer asks for


def check_conv(row, shape, weight_shape, epilogue=INTEGER["codes"], block=16, extra=0, tile=None, stores="", **options):
    """``extra``: elements of border beyond what the layer needs. stores: dtype of a result of floats."""
    spec = conv(epilogue, **options)
    (top, left, bottom, right), (sh, sw), (dh, dw) = spec.padding, spec.strides, spec.dilation
    n, _, *spatial = shape
    h, w = spatial if len(spatial) == 2 else (1, *spatial)
    kh, kw = weight_shape[2:] if len(weight_shape) == 4 else (1, weight_shape[2])
    extents = ((h + top + bottom - dh * (kh - 1) - 1) // sh + 1, (w + left + right - dw * (kw - 1) - 1) // sw + 1)
    out_shape = (n, weight_shape[0], *extents[2 - len(spatial) :])
    border = tuple(side + extra for side in needed_border(spec, shape, weight_shape, out_shape))
    dtype = spec.activations
    x = Storage(shape, dtype, block, border, X.zero_point if spec.x else 0)
    out = stored(out_shape, 16, BORDER, fill=OUT.zero_point)
    out = replace(out, dtype=stores, fill=0) if stores else out
    residual = stored(out_shape, 16, (0, 1, 2, 0))
    constants = constants_of(spec, weight_shape, np.random.default_rng(0))
    return check(conv2d, spec, constants, x, out, residual, row, tile=tile)


SHAPES = {
    "3x3": ((1, 16, 8, 8), (16, 16, 3, 3), {"padding": (1, 1, 1, 1)}),
    "odd channels, batch, stride, asymmetric pads": (
        (2, 23, 7, 5), (37, 23, 3, 3), {"strides": (2, 2), "padding": (0, 1, 1, 0)},
    ),
    "dilation": ((1, 20, 7, 7), (16, 20, 3, 3), {"dilation": (2, 3), "padding": (2, 3, 2, 3)}),
    "pointwise": ((2, 33, 5, 3), (24, 33, 1, 1), {}),
    "pointwise, stride": ((1, 16, 6, 7), (40, 16, 1, 1), {"strides": (2, 2)}),
    "one pixel": ((1, 40, 1, 1), (33, 40, 1, 1), {}),
    "one pixel, large window": ((1, 5, 1, 1), (3, 5, 3, 3), {"padding": (1, 1, 1, 1)}),
    "1x7": ((1, 16, 4, 19), (16, 16, 1, 7), {"padding": (0, 3, 0, 3)}),
    "groups of whole blocks": ((2, 32, 5, 5), (64, 16, 3, 3), {"groups": 2, "padding": (1, 1, 1, 1)}),
    "groups within a block": ((1, 12, 5, 5), (9, 4, 3, 3), {"groups": 3, "padding": (1, 1, 1, 1)}),
    "groups of whole blocks in, not out": ((1, 32, 4, 4), (10, 16, 1, 1), {"groups": 2}),
    "sequence": ((2, 17, 21), (18, 17, 5), {"strides": (1, 2), "padding": (0, 2, 0, 2)}),
}  # fmt: skip


@each_row
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name, row):
    shape, weight, options = SHAPES[name]
    check_conv(row, shape, weight, **options)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_in_float(name):
    shape, weight, options = SHAPES[name]
    check_conv(AVX2, shape, weight, FLOAT["float"], integer=False, **options)


BF16 = {"integer": False, "weights": "bfloat16"}


@pytest.mark.parametrize("row", FLOAT_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes_in_bfloat16(name, row):
    """By the instruction, and by float32 products where there is none. Memory around and behind tensors holds NaN."""
    shape, weight, options = SHAPES[name]
    kernel = check_conv(row, shape, weight, FLOAT["float"], **options, **BF16)
    assert kernel.note.startswith("vdpbf16ps" if row.has("avx512_bf16") else "fma")
    assert kernel.constants[0].dtype == np.uint16


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("weights", ["int8", "float16"])
@pytest.mark.parametrize("name", SHAPES)
def test_stored_weights(name, weights, row):
    """Layers of floats whose weights become float32 as they are loaded."""
    shape, weight, options = SHAPES[name]
    kernel = check_conv(row, shape, weight, FLOAT["float, residual"], integer=False, weights=weights, **options)
    assert kernel.constants[0].dtype == weights


@pytest.mark.parametrize("row", FLOAT_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("stores", ["float32", "bfloat16"])
def test_epilogues_in_bfloat16(stores, row):
    """The residual is bfloat16, the result either."""
    options = {"padding": (1, 1, 1, 1), "stores": stores, **BF16}
    check_conv(row, (1, 19, 5, 6), (21, 19, 3, 3), FLOAT["float, residual"], **options)


@pytest.mark.parametrize("row", FLOAT_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_stems_in_bfloat16(channels, row):
    options = {"strides": (2, 2), "padding": (1, 0, 0, 1), "block": channels, **BF16}
    check_conv(row, (2, channels, 9, 11), (17, channels, 3, 3), FLOAT["float"], **options)
    check_conv(row, (1, channels, 9, 45), (8, channels, 7, 7), FLOAT["float"], **{**options, "dilation": (1, 2)})


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("epilogue", [*INTEGER, *FLOAT])
def test_epilogues(epilogue, row):
    options = {"padding": (1, 1, 1, 1), "integer": epilogue in INTEGER}
    check_conv(row, (1, 18, 5, 6), (21, 18, 3, 3), (INTEGER | FLOAT)[epilogue], **options)


@each_row
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_stems_keep_few_channels_side_by_side(channels, row):
    options = {"strides": (2, 2), "padding": (1, 0, 0, 1), "block": channels}
    check_conv(row, (2, channels, 9, 11), (17, channels, 3, 3), **options)


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize(
    ("window", "dilation"), [((7, 7), (1, 1)), ((3, 3), (2, 2)), ((1, 40), (1, 1)), ((1, 1), (1, 1))]
)
def test_windows_of_stems(window, dilation, integer, row):
    """A window row as one run of memory; dilated or long ones, tap by tap."""
    epilogue = INTEGER["codes"] if integer else FLOAT["float"]
    weight, options = (8, 3, *window), {"dilation": dilation, "integer": integer, "block": 3}
    check_conv(row, (1, 3, 9, 45), weight, epilogue, padding=(3, 3, 3, 3), **options)


def test_a_wider_border_than_needed():
    """Another reader of the same tensor may want more."""
    check_conv(AVX2, (1, 16, 5, 5), (16, 16, 3, 3), padding=(1, 1, 1, 1), extra=2)
    check_conv(AVX2, (1, 16, 5, 5), (16, 16, 1, 1), extra=1)


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("tile", [(1, 1, 1), (2, 3, 2), (3, 2, 1), (1, 8, 1), (5, 7, 1)], ids=str)
def test_explicit_tiles_and_their_remainders(tile, outer, row):
    """5 x 7 pixels and 37 channels: no tile but the last fits evenly."""
    kernel = check_conv(row, (2, 16, 5, 7), (37, 16, 3, 3), tile=Tile(*tile, outer), padding=(1, 1, 1, 1))
    assert kernel.note.endswith(f" {tile[0]}x{tile[1]}x{tile[2] * row.lanes}")


ASKED = {
    "3x3, 37 of 23 channels, batch": ((2, 23, 4, 5), (37, 23, 3, 3), 16, {"padding": (1, 1, 1, 1)}),
    "pointwise": ((1, 56, 3, 4), (24, 56, 1, 1), 16, {}),
    "groups": ((1, 64, 3, 3), (64, 32, 3, 1), 16, {"groups": 2, "padding": (1, 0, 1, 0)}),
    "few channels": ((1, 3, 9, 9), (20, 3, 7, 7), 3, {"strides": (2, 2), "padding": (3, 3, 3, 3)}),
}


@pytest.mark.parametrize("row", [VNNI, AVX2], ids=lambda row: row.name)
@pytest.mark.parametrize("prefetch", [64, 128])
@pytest.mark.parametrize("name", ASKED)
def test_weights_asked_for_past_their_end(name, prefetch, row):
    shape, weight, block, options = ASKED[name]
    check_conv(row, shape, weight, block=block, tile=Tile(1, 3, 2, prefetch=prefetch), **options)


def test_weights_asked_for_in_float():
    options = {"integer": False, "padding": (1, 1, 1, 1), "tile": Tile(2, 2, 2, prefetch=64)}
    check_conv(AVX2, (1, 37, 4, 5), (19, 37, 3, 3), FLOAT["float"], **options)


@pytest.mark.parametrize("prefetch", [0, 64])
def test_every_weight_is_asked_for_once_a_tile(prefetch):
    kernel = check_conv(VNNI, (1, 16, 4, 4), (32, 16, 1, 1), tile=Tile(1, 4, 2, prefetch=prefetch))
    assert str(kernel.function).count("llvm.prefetch") == (8 if prefetch else 0)  # 4 steps of 2 vectors


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_tile(data):
    pick = {name: st.integers(1, most) for name, most in (("rows", 4), ("columns", 6), ("vectors", 3))}
    pick["prefetch"] = st.sampled_from((0, 64, 128))
    tile = Tile(**{name: data.draw(s) for name, s in pick.items()}, channels_outer=data.draw(st.booleans()))
    h, w, c, o = (data.draw(st.integers(1, most)) for most in (6, 9, 20, 50))
    check_conv(AVX2, (1, c, h, w), (o, c, 1, 2), tile=tile, padding=(0, 1, 0, 0))


@pytest.mark.parametrize("height", [12, 1])
@pytest.mark.parametrize("outer", [True, False])
def test_threads(always_fork, outer, height):
    """Both ways to share the work: by rows of an image, by columns of its only row."""
    width = 144 // height
    kernel = check_conv(
        AVX2.with_threads(2), (1, 64, height, width), (48, 64, 1, 3), tile=Tile(1, 5, 2, outer), padding=(0, 1, 0, 1)
    )
    assert "T.parallel" in str(kernel.function)


def test_little_work_stays_on_one_thread():
    kernel = check_conv(AVX2.with_threads(2), (1, 16, 4, 4), (16, 16, 1, 1))
    assert "T.parallel" not in str(kernel.function)


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_dilate(strides):
    """What turns a transposed convolution into an ordinary one: pixels apart, the zero point between and around."""
    x, (sh, sw) = stored((2, 20, 3, 4), 16, (0, 1, 0, 0)), strides
    out = Storage((2, 20, 2 * sh + 1, 3 * sw + 1), "uint8", 16, (1, 1, 0, 2), 9)
    data = codes(np.random.default_rng(0), x.shape)
    want = np.full(out.shape, 9, np.uint8)
    want[:, :, ::sh, ::sw] = data
    np.testing.assert_array_equal(run(dilate(strides, x, out, AVX2), [(x, data)], out, AVX2), want)
