"""The numbers that candidates of a workload are measured and checked with: random, and the same in every process."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from qcompile.ops import Affine, Dense
from qcompile.reference import convolution as reference
from qcompile.reference.narrow import NARROW, rounded
from qcompile.targets.kernels.conv import Constants
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import Storage

_TOLERANCE = 1e-4  # of float layers, whose results are of the order of 1 and summed in any order


_ROUNDING = {  # of results that are stored in fewer bits
    "bfloat16": 2**-8,
    **{dtype: 2.0 ** -(row.mantissa + 1) + _TOLERANCE for dtype, row in NARROW.items()},
}


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Flat buffers as the kernels take them, and what must come out: x, residual (if any), logical result."""

    x: np.ndarray
    residual: np.ndarray | None
    want: np.ndarray


def constants_of(workload: Workload) -> Constants:
    """Weights of all codes that plans use; multipliers and biases that spread the results over all codes."""
    rng = _rng(workload, "constants")
    spec, outputs, terms = workload.spec, workload.weight[0], prod(workload.weight[1:])
    if spec.x is None and spec.scaled:
        bias = rng.standard_normal(outputs, np.float32)
        if spec.weights in NARROW:
            weight = rounded(rng.standard_normal(workload.weight, np.float32) * 16, spec.weights)
            scale = rng.uniform(0.5, 1.5, outputs).astype(np.float32) / np.float32(16 * terms**0.5)
            return Constants(weight, bias, scale)
        size = np.float32((4.6 * 147 if spec.group else 74) * terms**0.5)  # of the sums
        scale = rng.uniform(0.5, 1.5, outputs).astype(np.float32) / size
        if spec.group:
            weight, group_scale = _groups(workload, rng)
            return Constants(weight, bias, scale, group_scale)
        return Constants(rng.integers(-127, 128, workload.weight, np.int8), bias, scale)
    if spec.x is None:
        weight = rng.standard_normal(workload.weight, np.float32) / np.float32(terms**0.5)
        weight = rounded(weight, "bfloat16") if spec.weights == "bfloat16" else weight.astype(spec.weights)
        return Constants(weight, rng.standard_normal(outputs, np.float32), None)
    group_scale = None
    if workload.group:
        weight, group_scale = _groups(workload, rng)
        spread = 4.6 * 147
    else:
        weight, spread = rng.integers(-127, 128, workload.weight, np.int8), 74.0
    deviation = spread * terms**0.5 * (255**2 / 3 if spec.x.dtype == "uint8" else 128**2 / 3) ** 0.5  # of the sums
    middle = 128 * (spec.epilogue.out is not None and spec.epilogue.out.qmin == 0 and workload.residual is None)
    multiplier = rng.uniform(0.5, 1.5, outputs) * 64 / deviation
    bias = np.rint(rng.uniform(0.5, 1.5, outputs) * middle / multiplier)
    return Constants(weight, bias.astype(np.int32), multiplier.astype(np.float32), group_scale)


def _groups(workload: Workload, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An int4 weight of a mean near 0, and the scales of its groups."""
    weight = rng.integers(-8, 9, workload.weight, np.int8).clip(-8, 7)
    return weight, rng.integers(1, 256, (workload.weight[0], prod(workload.weight[1:]) // workload.group), np.uint8)


def feed_of(workload: Workload) -> Feed:
    """Random activations, and the oracle's result for them."""
    rng = _rng(workload, "activations")
    x = _tensor(workload.x, workload.spec.x, rng)
    constants = constants_of(workload)
    args = [constants.weight, constants.bias, constants.multiplier, constants.group_scale]
    args = [arg for arg in args if arg is not None]
    residual = None
    if workload.residual is not None:
        values = _tensor(workload.residual, workload.spec.epilogue.residual, rng)
        residual = workload.residual.store(values)
        args.append(values)
    spec = workload.spec
    want = reference.dense(spec, x, *args) if isinstance(spec, Dense) else reference.conv2d(spec, x, *args)
    return Feed(workload.x.store(x), residual, want)


def difference(workload: Workload, flat: np.ndarray, want: np.ndarray) -> str:
    """How a result (flat buffer) differs from the oracle's, in words; "" if it does not.

    Codes and floats computed from codes must agree to the bit, float layers within a tolerance; so must the border.
    """
    framed, expected = _framed(workload.out, want)
    got = framed.view(flat)
    tolerance = _ROUNDING.get(workload.out.dtype, _TOLERANCE)
    wrong = got != expected if workload.integer else ~np.isclose(got, expected, tolerance, tolerance)
    if not wrong.any():
        return ""
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"wrong result: {int(wrong.sum())} of {wrong.size} elements, first {got[where]} for {expected[where]}"


def _framed(out: Storage, want: np.ndarray) -> tuple[Storage, np.ndarray]:
    """The result with its border as a larger image without one."""
    if not out.blocked:
        return out, want
    n, c, h, w = out.image
    top, left, bottom, right = out.border
    frame = ((0, 0), (0, 0), (top, bottom), (left, right))
    image = replace(out, shape=(n, c, h + top + bottom, w + left + right), border=(0, 0, 0, 0))
    return image, np.pad(want.reshape(n, c, h, w), frame, constant_values=out.fill)


def _tensor(storage: Storage, codes: Affine | None, rng: np.random.Generator) -> np.ndarray:
    if codes is None:
        return rng.standard_normal(storage.shape, np.float32)
    return rng.integers(codes.qmin, codes.qmax + 1, storage.shape, storage.dtype)


def _rng(workload: Workload, purpose: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{purpose} {workload.key}".encode()))
