"""Registers suffice for every tile and strip, on every architecture: nothing of a product lies in local memory."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import Affine, Conv2d, Epilogue
from qcompile.targets.cuda.architectures import ARCHITECTURES
from qcompile.targets.cuda.contract import contract, conv_shape, problem_of
from qcompile.targets.cuda.depthwise import depthwise, strips
from qcompile.targets.cuda.program import templates
from qcompile.targets.cuda.storage import channels_last
from qcompile.targets.cuda.text import NAME
from qcompile.targets.cuda.tile_time import choose_tile
from qcompile.targets.cuda.tiles import tiles

CODES = Affine(0.05, 3)
LAYERS = {  # channels, pixels a side, outputs, window, residual
    "window": (64, 28, 64, 3, False),
    "pointwise": (256, 14, 512, 1, True),
    "few channels": (3, 56, 64, 7, False),
    "eight channels": (8, 30, 40, 3, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: arch.name)
@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_is_spilled(layer, arch, cuda_compiler):
    channels, side, outputs, window, added = LAYERS[layer]
    spec = Conv2d((1, 1), (window // 2,) * 4, (1, 1), 1, CODES, Epilogue(CODES, None, CODES if added else None))
    x, y = (channels_last((8, c, side, side), "uint8") for c in (channels, outputs))
    weight = np.ones((outputs, channels, window, window), np.int8)
    numbers = (weight, np.zeros(outputs, np.int32), np.ones(outputs, np.float32))
    shape = conv_shape(spec, (window, window), x, y)
    problem = problem_of(shape, weight.shape, x)
    legal = list(tiles(problem, arch))
    texts = []
    for tile in dict.fromkeys((choose_tile(problem, arch), *legal[:: len(legal) // 8])):
        kernel, _ = contract(spec, shape, *numbers, x, y, y if added else None, tile, arch)
        texts.append(kernel.text.replace(NAME, f"tile_{len(texts)}"))
    kernels = cuda_compiler.cubin(templates() + "\n".join(texts), arch.name).kernels
    assert len(kernels) == len(texts)
    assert not {name: use for name, use in kernels.items() if use.spills or use.stack}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: arch.name)
def test_no_strip_is_spilled(arch, cuda_compiler):
    x, texts = channels_last((8, 96, 28, 28), "uint8"), []
    for window in (3, 5, 7, 9):
        spec = Conv2d((1, 1), (window // 2,) * 4, (1, 1), 96, CODES, Epilogue(CODES, None, CODES))
        shape = conv_shape(spec, (window, window), x, x)
        numbers = (np.ones((96, 1, window, window), np.int8), np.zeros(96, np.int32), np.ones(96, np.float32))
        for strip in strips(shape):
            kernel, _ = depthwise(spec, shape, *numbers, x, x, x, strip, arch)
            texts.append(kernel.text.replace(NAME, f"strip_{len(texts)}"))
    kernels = cuda_compiler.cubin(templates() + "\n".join(texts), arch.name).kernels
    assert len(kernels) == len(texts)
    assert not {name: use for name, use in kernels.items() if use.spills or use.stack}
