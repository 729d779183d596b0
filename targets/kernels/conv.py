"""Convolution and dense layers as ``contract`` loop nests, with their constants packed for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from tvm import tirx

from qcompile.ops import Conv2d, Dense
from qcompile.reference.arithmetic import code_bounds
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.contract import Contraction, Vector
from qcompile.targets.kernels.reduction import (
    Reduction,
    block_diagonal,
    conv_reduction,
    dense_reduction,
    pack,
    pad_channels,
)
from qcompile.targets.kernels.tiling import Tile, default_tile, order
from qcompile.targets.storage import BLOCK, Storage
from qcompile.targets.target import Target


@dataclass(frozen=True, slots=True, eq=False)
class Constants:
    """Array arguments of a layer: weight int8 (float32), bias int32 (float32) (O,), multiplier float32 (O,) (None)."""

    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray | None


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A function over (activations in, packed constants, residual if any, activation out), flat buffers all.

    constants: the packed arrays, in argument order, between the first activation and the rest.
    note: the knobs that it was made with, for reports.
    """

    function: tirx.PrimFunc
    constants: tuple[np.ndarray, ...]
    note: str


def conv2d(
    spec: Conv2d,
    constants: Constants,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    target: Target,
    tile: Tile | None = None,
) -> Kernel:
    """Any convolution that is not depthwise.

    x, out, residual: blocked (x: 16 channels or all of at most 4). weight: OIHW or OIW.
    """
    weight = constants.weight if constants.weight.ndim == 4 else constants.weight[:, :, None, :]
    per_group = (weight.shape[0] // spec.groups, weight.shape[1])
    if spec.groups > 1 and (per_group[0] % BLOCK or per_group[1] % BLOCK or x.block != BLOCK):
        weight, spec = block_diagonal(weight, spec.groups), replace(spec, groups=1)
    group = target.dot.group if spec.x else 1
    reduction = conv_reduction(spec, x, weight.shape, out, residual, group)
    return _kernel("conv2d", spec, replace(constants, weight=weight), reduction, x, out, residual, target, tile)


def dense(
    spec: Dense,
    constants: Constants,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    target: Target,
    tile: Tile | None = None,
) -> Kernel:
    """x (..., K), out (..., N), residual (..., N): plain; weight (N, K)."""
    outputs, inputs = constants.weight.shape
    rows = x.numel // inputs
    reduction = dense_reduction(rows, inputs, outputs, residual is not None, target.dot.group if spec.x else 1)
    return _kernel("dense", spec, constants, reduction, x, out, residual, target, tile)


def _kernel(
    name: str,
    spec: Conv2d | Dense,
    constants: Constants,
    reduction: Reduction,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    target: Target,
    tile: Tile | None,
) -> Kernel:
    vector, last = _vectors(reduction.outputs, spec.x is not None, out.blocked, target)
    lanes, dot = vector.lanes, vector.dot
    if tile is None:
        vectors = -(-reduction.outputs // lanes)
        widened = dot is not None and dot.group == 2
        tile = default_tile(
            reduction.height, reduction.width, vectors, reduction.steps, widened, reduction.overlapping, target
        )
        tile = order(tile, x.nbytes, constants.weight.nbytes, target)
    flat = constants.weight.reshape(constants.weight.shape[0], -1)
    arrays = {
        "weight": pack(flat, reduction, lanes, last.lanes, tile.vectors),
        "bias": pad_channels(shifted_bias(spec, constants), reduction, lanes, last.lanes),
    }
    if constants.multiplier is not None:
        arrays["multiplier"] = pad_channels(constants.multiplier.astype(np.float32), reduction, lanes, last.lanes)
    bounds = code_bounds(spec.epilogue.out, spec.epilogue.clip) if spec.epilogue.out else None
    nest = Contraction(reduction, tile, vector, last, target.threads, spec.epilogue, bounds)

    def emit(args: dict[str, b.Buffer]) -> None:
        if any(out.border):
            with b.loop(out.image[0]) as n, b.loop(out.blocks) as block:
                b.fill_border(args["y"], out, n, block)
        nest.emit(args)

    note = f"{dot.name if dot else 'fma'} {tile.rows}x{tile.columns}x{tile.vectors * lanes}"
    return layer_kernel(name, arrays, x, out, residual, emit, note)


def _vectors(outputs: int, integer: bool, blocked: bool, target: Target) -> tuple[Vector, Vector]:
    """Vectors of output channels (of a group): as wide as the target has them, the last one no wider than it must be.

    A plain row ends with its last channel; in a block there is room for a whole vector.
    """

    def fitting(channels: int) -> Vector:
        dot = target.dot_for(channels) if integer else None
        lanes = dot.lanes if dot else next((n for n in (4, 8) if channels <= n < target.lanes), target.lanes)
        return Vector(lanes, dot, lanes if blocked else min(lanes, channels))

    vector = fitting(outputs)
    rest = outputs % vector.lanes
    return replace(vector, stored=vector.lanes) if outputs >= vector.lanes else vector, fitting(
        rest
    ) if rest else vector


def layer_kernel(
    name: str,
    arrays: Mapping[str, np.ndarray],
    x: Storage,
    out: Storage,
    residual: Storage | None,
    emit: Callable[[dict[str, b.Buffer]], None],
    note: str,
) -> Kernel:
    """The kernel of a layer with weights over (x, arrays..., residual if any, y); ``emit`` gets the buffers by name."""
    buffers = [("x", x.dtype, x.numel)]
    buffers += [(key, str(array.dtype), array.size) for key, array in arrays.items()]
    if residual is not None:
        buffers.append(("residual", residual.dtype, residual.numel))
    buffers.append(("y", out.dtype, out.numel))
    names = [buffer[0] for buffer in buffers]
    function = b.kernel(name, buffers, lambda *args: emit(dict(zip(names, args, strict=True))))
    return Kernel(function, tuple(arrays.values()), note)


def shifted_bias(spec: Conv2d | Dense, constants: Constants) -> np.ndarray:
    """``sum (x - z) w + bias = sum x w + (bias - z sum w)``; int32 sums wrap, so the new bias may, too.

    Stored in 16 bits where all fit: of a small network's file, biases are a tenth.
    """
    if spec.x is None:
        return constants.bias.astype(np.float32)
    sums = constants.weight.reshape(constants.weight.shape[0], -1).sum(axis=1, dtype=np.int64)
    bias = (constants.bias.astype(np.int64) - spec.x.zero_point * sums).astype(np.int32)
    small = np.iinfo(np.int16)
    fits = small.min <= bias.min(initial=0) and bias.max(initial=0) <= small.max
    return bias.astype(np.int16) if fits else bias
