"""Products on Tensor Cores, emulated: every tile, window, stride and grouping gives the oracle's bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from qcompile.manifest import Launch
from qcompile.ops import Affine, Conv2d, Epilogue
from qcompile.reference import convolution as reference
from qcompile.targets.cuda.constants import has_own_groups, has_small_sums
from qcompile.targets.cuda.contract import contract, conv_shape
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import Program, templates
from qcompile.targets.cuda.storage import Storage, channels_last
from qcompile.targets.cuda.text import NAME, Kernel
from qcompile.targets.cuda.tile_time import TILES
from qcompile.targets.cuda.tiles import Tile

X, OUT, RESIDUAL = Affine(0.02, 7), Affine(0.05, 11), Affine(0.03, 200)
CODES, ADDED = Epilogue(OUT, (0.0, 6.0)), Epilogue(OUT, None, RESIDUAL)


@dataclass(frozen=True)
class Layer:
    """(N, C, H, W) and (O, C / groups, K, K)."""

    image: tuple[int, int, int, int]
    outputs: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    epilogue: Epilogue = CODES
    tile: Tile | None = None
    group: int = 0
    x: Affine = X


CASES = {
    **{
        f"tile {t}": Layer((1, 48, 9, 11), 70, 3, 1, 1, epilogue=ADDED, tile=t)
        for t in (*TILES, Tile(64, 64, 2, 2, 2), Tile(64, 128, 1, 4, 6))
    },
    "slices with nothing to do": Layer((1, 16, 5, 5), 20, 3, 1, 1, tile=Tile(32, 32, 1, 2, 3, 4)),
    "slices of floats": Layer((1, 80, 5, 5), 21, 3, 1, 1, epilogue=Epilogue(None, None), tile=Tile(16, 64, 1, 2, 4, 4)),
    "slices of groups": Layer((2, 64, 5, 5), 80, 3, 1, 1, groups=4, tile=Tile(32, 32, 1, 2, 2, 2)),
    "borders of zeros": Layer((1, 32, 7, 7), 24, 3, 1, 1, x=Affine(0.02, 0)),
    "borders of zeros, few channels": Layer((1, 3, 9, 9), 24, 5, 2, 2, x=Affine(0.02, 0)),
    "few channels": Layer((2, 3, 13, 9), 20, 5, 2, 2),
    "eight channels": Layer((1, 8, 7, 7), 8, 3, 1, 1),
    "dilated": Layer((1, 16, 11, 11), 33, 3, 1, 2, 2),
    "strided": Layer((3, 32, 10, 10), 16, 1, 2),
    "long": Layer((1, 1040, 2, 3), 40),
    "floats": Layer((1, 20, 5, 5), 21, 3, 1, 1, epilogue=Epilogue(None, (0.0, float("inf")))),
    "groups of 4": Layer((1, 24, 6, 6), 24, 3, 1, 1, groups=6),
    "groups of 20 to 40": Layer((2, 60, 5, 5), 120, 1, groups=3, epilogue=ADDED),
    "groups of 16 to 8": Layer((1, 64, 5, 5), 32, 3, 2, 1, groups=4),
    "groups to floats": Layer((1, 32, 4, 4), 48, 3, 1, 1, groups=4, epilogue=Epilogue(None, None, RESIDUAL)),
}


INT4 = {
    **{f"{size} weights a scale": Layer((1, 2 * size, 5, 7), 40, 1, group=size) for size in (8, 16, 32, 64, 24, 40)},
    "windows": Layer((1, 48, 9, 11), 70, 3, 1, 1, epilogue=ADDED, group=16),
    "strided windows": Layer((2, 32, 10, 10), 20, 3, 2, 1, group=32),
    "groups of channels": Layer((1, 64, 6, 6), 64, 3, 1, 1, groups=2, group=32),
    "a long row": Layer((1, 1056, 1, 1), 40, group=32),
    "to floats": Layer((1, 64, 3, 3), 21, 1, epilogue=Epilogue(None, None), group=32),
    **{f"tile {t}": Layer((1, 64, 9, 11), 70, 3, 1, 1, tile=t, group=32) for t in TILES[:: len(TILES) // 4]},
}
CASES |= {f"int4, {name}": layer for name, layer in INT4.items()}


def codes(rng, shape, dtype="uint8"):
    bounds = np.iinfo(dtype)
    return rng.integers(bounds.min, bounds.max, shape, endpoint=True).astype(dtype)


@dataclass(frozen=True)
class Built:
    kernel: Kernel
    buffers: list[np.ndarray]
    out: Storage
    want: np.ndarray


def build(layer: Layer) -> Built:
    rng = np.random.default_rng(0)
    n, c, h, w = layer.image
    p, s, d = layer.padding, layer.stride, layer.dilation
    spec = Conv2d((s, s), (p,) * 4, (d, d), layer.groups, layer.x, layer.epilogue, group=layer.group)
    weight = codes(rng, (layer.outputs, c // layer.groups, layer.kernel, layer.kernel), "int8")
    scales = []
    if layer.group:
        weight = (weight >> 4).astype(np.int8)
        scales = [rng.integers(1, 255, (layer.outputs, weight[0].size // layer.group), endpoint=True).astype(np.uint8)]
    bias = rng.integers(-1000, 1000, layer.outputs).astype(np.int32)
    size = np.float32(100 * weight[0].size ** 0.5 * (8 if layer.group else 1))
    factor = rng.uniform(0.3, 2, layer.outputs).astype(np.float32) / size
    x = codes(rng, layer.image)
    extents = [(e + 2 * p - d * (layer.kernel - 1) - 1) // s + 1 for e in (h, w)]
    shape = (n, layer.outputs, *extents)
    rest = [codes(rng, shape)] if layer.epilogue.residual else []
    want = reference.conv2d(spec, x, weight, bias, factor, *scales, *rest)
    source, out = channels_last(layer.image, "uint8"), channels_last(shape, str(want.dtype))
    other = channels_last(shape, "uint8") if rest else None
    assert has_own_groups(layer.groups, c // layer.groups, layer.outputs // layer.groups)
    geometry = conv_shape(spec, weight.shape[2:], source, out)
    numbers = (weight, bias, factor)
    kernel, constants = contract(
        spec, geometry, *numbers, source, out, other, layer.tile, group_scale=next(iter(scales), None)
    )
    return Built(kernel, [source.store(x), *constants, *(other.store(r) for r in rest)], out, want)


@pytest.fixture(scope="module")
def built():
    return {name: build(layer) for name, layer in CASES.items()}


@pytest.fixture(scope="module")
def emulated(built):
    texts = [b.kernel.text.replace(NAME, f"k{i}") for i, b in enumerate(built.values())]
    return Emulated(templates() + "\n".join(texts), optimize=0)


@pytest.mark.parametrize("name", CASES)
def test_the_oracles_bits(built, emulated, name):
    case, number = built[name], list(CASES).index(name)
    places = [(f"input{i}", 0) for i in range(len(case.buffers))]
    kernel = case.kernel
    launch = Launch(f"k{number}", kernel.grid, kernel.block, kernel.shared, (*places, ("output0", 0)))
    program = Program("", (launch,), np.zeros(0, np.uint8), 0)
    for order in range(4):
        y = np.zeros(case.out.numel, case.out.dtype)
        emulated.run(program, case.buffers, [y], order)
        np.testing.assert_array_equal(case.out.load(y), case.want)


def test_groups_that_begin_between_words_are_made_one():
    assert has_own_groups(1, 3, 5) and has_own_groups(4, 8, 12)
    assert not has_own_groups(4, 6, 8) and not has_own_groups(4, 8, 6)


def test_sums_that_floats_can_count():
    weight, bias = np.full((2, 100, 1, 1), 127, np.int8), np.zeros(2, np.int32)
    assert has_small_sums(bias, weight, X)
    assert not has_small_sums(bias, np.full((2, 200, 1, 1), 127, np.int8), X)
    assert not has_small_sums(np.array([0, 2**22], np.int32), weight, X)


def test_codes_are_rounded_to_even():
    kernel = """
QC_KERNEL(256) codes(const float* x, int* y) {
  y[threadIdx.x] = to_code(x[threadIdx.x], -128.0f, 127.0f, 0);
  y[256 + threadIdx.x] = bits_of(real_sum<true>(static_cast<int>(x[threadIdx.x] * 16384.0f)));
}
"""
    x = np.concatenate([np.arange(-64, 63, 0.5), [-np.inf, np.inf]]).astype(np.float32)
    launch = Launch("codes", 1, 256, 0, (("input0", 0), ("output0", 0)))
    y = np.zeros(512, np.int32)
    finite = np.nan_to_num(x, posinf=0, neginf=0)
    emulated = Emulated(templates() + kernel, optimize=0)
    emulated.run(Program("", (launch,), np.zeros(0, np.uint8), 0), [finite], [y])
    np.testing.assert_array_equal(y[:256], np.rint(finite))
    np.testing.assert_array_equal(y[256:].view(np.float32), finite * 16384)
    emulated.run(Program("", (launch,), np.zeros(0, np.uint8), 0), [x], [y])
    assert y[254] == -128 and y[255] == 127
