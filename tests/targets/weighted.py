"""Random arguments of convolutions and matrix products, and what a kernel makes of them against the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qcompile.ops import Affine, Conv2d, Dense, Epilogue
from qcompile.reference import convolution as reference
from qcompile.reference.bfloat16 import rounded
from qcompile.targets.kernels.conv import Constants, Kernel
from qcompile.targets.kernels.tiling import Tile
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target
from tests.targets.running import codes, run

X, OUT, RESIDUAL = Affine(0.02, 7), Affine(0.05, 11), Affine(0.03, 200)
INF = float("inf")
# name -> epilogue: codes, a residual of codes, of floats; floats out of codes; and layers that are float throughout
INTEGER = {
    "codes": Epilogue(OUT, (0.0, 6.0)),
    "residual": Epilogue(OUT, None, RESIDUAL),
    "floats out": Epilogue(None, (0.0, INF)),
    "floats out, residual": Epilogue(None, (-1.0, 1.0), RESIDUAL),
    "floats out, float residual": Epilogue(None, None, None, True),
}
FLOAT = {"float": Epilogue(None, (0.0, INF)), "float, residual": Epilogue(None, None, None, True)}


def conv(
    epilogue: Epilogue,
    integer: bool = True,
    strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    weights: str = "",
) -> Conv2d:
    return Conv2d(strides, padding, dilation, groups, X if integer else None, epilogue, weights)


def constants_of(spec: Conv2d | Dense, weight_shape: tuple[int, ...], rng: np.random.Generator) -> Constants:
    """Weights with both extremes; multipliers that spread the results over all codes, and past them."""
    outputs, terms = weight_shape[0], int(np.prod(weight_shape[1:]))
    if spec.x is None:
        weight = rng.standard_normal(weight_shape, np.float32)
        bias = rng.standard_normal(outputs, np.float32)
        if spec.scaled:
            scale = rng.uniform(0.5, 2, outputs).astype(np.float32) / 100
            return Constants(codes(rng, weight_shape, "int8"), bias, scale)
        return Constants(rounded(weight) if spec.weights == "bfloat16" else weight.astype(spec.weights), bias, None)
    multiplier = rng.uniform(0.3, 2, outputs) / (100 * terms**0.5)
    bias = rng.integers(-1000, 1000, outputs).astype(np.int32)
    return Constants(codes(rng, weight_shape, "int8"), bias, multiplier.astype(np.float32))


def tensor(shape: tuple[int, ...], is_float: bool, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(shape, np.float32) if is_float else codes(rng, shape)


def check(
    build: Callable[..., Kernel],
    spec: Conv2d | Dense,
    constants: Constants,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    row: Target,
    **knobs: Tile | int,
) -> Kernel:
    """The kernel equals the oracle: to the bit for codes, up to the order of additions for floats.

    ``out`` and ``residual`` are given for codes, or bfloat16; else the element types follow from the epilogue.
    """
    rng = np.random.default_rng(1)
    epilogue = spec.epilogue
    out = out if epilogue.out or out.is_float else replace(out, dtype="float32", fill=0)
    data = tensor(x.shape, spec.x is None, rng)
    args = [constants.weight, constants.bias, constants.multiplier, constants.group_scale]
    args = [arg for arg in args if arg is not None]
    more = []
    if epilogue.residual or epilogue.residual_is_float:
        other = tensor(out.shape, epilogue.residual_is_float, rng)
        residual = replace(residual, dtype=str(other.dtype) if spec.x else spec.activations)
        args.append(other)
        more = [(residual, other)]
    else:
        residual = None
    oracle = reference.dense if isinstance(spec, Dense) else reference.conv2d
    want = oracle(spec, data, *args)
    kernel = build(spec, constants, x, out, residual, row, **knobs)
    got = run(kernel.function, [(x, data), *kernel.constants, *more], out, row)
    assert got.shape == want.shape and got.dtype == want.dtype
    if spec.x:
        np.testing.assert_array_equal(got, want)
        assert np.unique(want).size > 1 or want.size < 8
    else:
        tolerance = 2**-8 if out.dtype == "bfloat16" else 1e-4
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    return kernel
