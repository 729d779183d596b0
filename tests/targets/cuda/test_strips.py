"""Strips of depthwise convolutions: every one gives the oracle's bits, and which one a layer gets."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.manifest import Launch
from qcompile.ops import Affine, Conv2d, Epilogue
from qcompile.reference import convolution as reference
from qcompile.targets.cuda.architectures import ARCHITECTURES
from qcompile.targets.cuda.contract import Shape, conv_shape
from qcompile.targets.cuda.depthwise import Strip, choose_strip, depthwise, strip_cycles, strips
from qcompile.targets.cuda.emulate import Emulated
from qcompile.targets.cuda.program import Program, templates
from qcompile.targets.cuda.storage import channels_last
from qcompile.targets.cuda.text import NAME

EACH = pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: arch.name)


def image(batch: int, side: int, window: int = 3) -> Shape:
    return Shape(batch, side, side, side, side, (window, window), padding=(window // 2,) * 4)


def test_every_strip_gives_the_oracles_bits():
    rng = np.random.default_rng(0)
    spec = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 20, Affine(0.1, 5), Epilogue(Affine(0.2, 9)))
    x = rng.integers(0, 256, (2, 20, 9, 11)).astype(np.uint8)
    weight = rng.integers(-128, 128, (20, 1, 3, 3)).astype(np.int8)
    bias = rng.integers(-500, 500, 20).astype(np.int32)
    factor = rng.uniform(0.001, 0.01, 20).astype(np.float32)
    want = reference.conv2d(spec, x, weight, bias, factor)
    storage = channels_last(x.shape, "uint8")
    shape = conv_shape(spec, (3, 3), storage, storage)
    built = [depthwise(spec, shape, weight, bias, factor, storage, storage, None, s) for s in strips(shape)]
    texts = [kernel.text.replace(NAME, f"strip_{i}") for i, (kernel, _) in enumerate(built)]
    emulated = Emulated(templates() + "\n".join(texts), optimize=0)
    for i, (kernel, constants) in enumerate(built):
        places = [(f"input{n}", 0) for n in range(1 + len(constants))]
        launch = Launch(f"strip_{i}", kernel.grid, kernel.block, 0, (*places, ("output0", 0)))
        y = np.zeros(storage.numel, np.uint8)
        emulated.run(Program("", (launch,), np.zeros(0, np.uint8), 0), [storage.store(x), *constants], [y])
        np.testing.assert_array_equal(storage.load(y), want)


@EACH
def test_large_images_have_long_strips_and_small_ones_many_threads(arch):
    assert choose_strip(image(32, 112), 96, arch).pixels >= 4
    assert choose_strip(image(1, 7), 32, arch).pixels == 1
    assert choose_strip(image(32, 112, 9), 96, arch).pixels == 1  # whose taps fill the registers
    assert strip_cycles(image(64, 56), 96, Strip(4, 256), arch) > strip_cycles(image(32, 56), 96, Strip(4, 256), arch)
