"""Convolution and dense layers as ``contract`` loop nests, with their constants packed for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tvm import tirx

from qcompile.formats import ITEM_BYTES
from qcompile.ops import Conv2d, Dense
from qcompile.reference.narrow import to_bits
from qcompile.targets.instructions import Dot, narrowest
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.contract import Contraction, Vector
from qcompile.targets.kernels.contract_pairs import PairedContraction
from qcompile.targets.kernels.reduction import (
    Reduction,
    Runs,
    block_diagonal,
    conv_reduction,
    dense_reduction,
    pack,
    pad_channels,
)
from qcompile.targets.kernels.tiling import Product, Tile, default_tile, order
from qcompile.targets.storage import BLOCK, Storage
from qcompile.targets.target import Target

_FLOATS = 4  # of a register that are loaded at once and multiplied one by one, if vectors are no longer


@dataclass(frozen=True, slots=True, eq=False)
class Constants:
    """Array arguments of a layer: weight; bias int32, or float32 of a float layer (O,); multiplier of integer weights.

    weight: of the dtype that the specification says, (O, ...). multiplier: float32 (O,), else None.
    group_scale: (O, groups) uint8 of weights by groups (see ``ops.Dense``).
    """

    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray | None
    group_scale: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A function over (activations in, packed constants, residual if any, activation out), flat buffers all.

    constants: the packed arrays, in argument order, between the first activation and the rest.
    note: the knobs that it was made with, for reports.
    """

    function: tirx.PrimFunc
    constants: tuple[np.ndarray, ...]
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What a tile is chosen for: the loop nest, the vectors of its output channels, the bytes that it reads."""

    reduction: Reduction
    vector: Vector
    last: Vector
    input_bytes: int
    weight_bytes: int
    target: Target

    @property
    def vectors(self) -> int:
        """Vectors of output channels of a group."""
        return -(-self.reduction.outputs // self.vector.lanes)

    @property
    def widened(self) -> bool:
        """Whether products need registers of their own."""
        dot = self.vector.dot
        return dot is not None and dot.group == 2 and not dot.needs

    @property
    def product(self) -> Product:
        """What tiles must know of the dot product."""
        return Product(self.vector.ahead, self.vector.dot.pixels if self.vector.dot else 1)

    @property
    def products(self) -> int:
        """Vector instructions of a step."""
        return self.vector.dot.products if self.vector.dot else 1

    def default_tile(self) -> Tile:
        r = self.reduction
        rest = (self.widened, r.overlapping, self.target, self.product)
        tile = default_tile(r.height, r.width, self.vectors, r.steps, *rest)
        return order(tile, self.input_bytes, self.weight_bytes, self.target)


def conv2d_problem(
    spec: Conv2d,
    weight_shape: tuple[int, ...],
    x: Storage,
    out: Storage,
    residual: Storage | None,
    target: Target,
) -> Problem:
    """weight_shape: (O, I / groups, KH, KW). Groups that ``as_one_group`` cannot tell apart count as one."""
    if as_one_group(spec, weight_shape, x):
        weight_shape, spec = (weight_shape[0], weight_shape[1] * spec.groups, *weight_shape[2:]), _one_group(spec)
    _, _, height, width = out.image
    dots = dots_for(spec, height * width, target)
    reduction = conv_reduction(spec, x, weight_shape, out, residual, _group(dots))
    return _problem(reduction, dots, spec, weight_shape, x, out, target)


def dense_problem(
    spec: Dense,
    weight_shape: tuple[int, ...],
    x: Storage,
    out: Storage,
    residual: Storage | None,
    target: Target,
) -> Problem:
    """weight_shape: (N, K)."""
    outputs, inputs = weight_shape
    rows = x.numel // inputs
    dots = dots_for(spec, rows, target)
    reduction = dense_reduction(
        rows, inputs, outputs, residual is not None, Runs(_group(dots), exact=spec.x is None), spec.group
    )
    return _problem(reduction, dots, spec, weight_shape, x, out, target)


def dots_for(spec: Conv2d | Dense, pixels: int, target: Target) -> tuple[Dot, ...]:
    """The dot product of a layer at its widest and narrower; matrix products where there are pixels to pair."""
    if target.matrix and spec.x is not None and spec.weights == "int8" and pixels > 1:
        return (target.matrix,)
    return target.dots_of(spec.activations)


def _group(dots: tuple[Dot, ...]) -> int:
    """Products of a reduction step."""
    return dots[0].group if dots else 1


def _problem(
    reduction: Reduction,
    dots: tuple[Dot, ...],
    spec: Conv2d | Dense,
    weight_shape: tuple[int, ...],
    x: Storage,
    out: Storage,
    target: Target,
) -> Problem:
    vector, last = _vectors(reduction.outputs, dots, out.blocked, target)
    weight_bytes = int(prod(weight_shape) * ITEM_BYTES[spec.weights])
    return Problem(reduction, vector, last, x.nbytes, weight_bytes, target)


def as_one_group(spec: Conv2d, weight_shape: tuple[int, ...], x: Storage) -> bool:
    """Whether groups cannot be told apart by channel blocks, and run as one with zeros between them."""
    if spec.groups == 1:
        return False
    return bool(weight_shape[0] // spec.groups % BLOCK or weight_shape[1] % BLOCK) or x.block != BLOCK


def _one_group(spec: Conv2d) -> Conv2d:
    return replace(spec, groups=1)


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
    problem = conv2d_problem(spec, weight.shape, x, out, residual, target)
    if as_one_group(spec, weight.shape, x):
        weight, spec = block_diagonal(weight, spec.groups), _one_group(spec)
    return _kernel("conv2d", spec, replace(constants, weight=weight), problem, x, out, residual, tile)


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
    problem = dense_problem(spec, constants.weight.shape, x, out, residual, target)
    return _kernel("dense", spec, constants, problem, x, out, residual, tile)


def _kernel(
    name: str,
    spec: Conv2d | Dense,
    constants: Constants,
    problem: Problem,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    tile: Tile | None,
) -> Kernel:
    reduction, codes = problem.reduction, constants.weight
    vector, last = (replace(v, dot=v.dot and v.dot.for_weights(codes)) for v in (problem.vector, problem.last))
    lanes, dot = vector.lanes, vector.dot
    tile = tile or problem.default_tile()
    flat = constants.weight.reshape(constants.weight.shape[0], -1)
    arrays = {
        "weight": pack(flat, reduction, lanes, last.lanes, tile.vectors),
        "bias": pad_channels(shifted_bias(spec, constants), reduction, lanes, last.lanes),
    }
    if constants.multiplier is not None:
        arrays["multiplier"] = pad_channels(constants.multiplier.astype(np.float32), reduction, lanes, last.lanes)
    if spec.weights in b.STORED_AS_BITS:
        arrays["weight"] = to_bits(arrays["weight"], spec.weights)
    dtypes = dtypes_of(spec, out, residual)
    kind = PairedContraction if dot and dot.pixels > 1 else Contraction
    nest = kind(reduction, tile, vector, last, problem.target.threads, spec.epilogue, dtypes)
    note = f"{dot.name if dot else 'fma'} {tile.rows}x{tile.columns}x{tile.vectors * lanes}"
    llvm = "".join(dict.fromkeys(v.dot.llvm for v in (vector, last) if v.dot))
    return layer_kernel(name, arrays, x, out, residual, with_border(nest.emit, out), note, llvm)


def with_border(emit: Callable[[dict[str, b.Buffer]], None], out: Storage) -> Callable[[dict[str, b.Buffer]], None]:
    """A loop nest that writes ``out``, and its border before that."""

    def both(args: dict[str, b.Buffer]) -> None:
        if any(out.border):
            with b.loop(out.image[0]) as n, b.loop(out.blocks) as block:
                b.fill_border(args["y"], out, n, block)
        emit(args)

    return both


def dtypes_of(spec: Conv2d | Dense, out: Storage, residual: Storage | None) -> dict[str, str]:
    """What ``Contraction`` needs to know of its buffers."""
    return {"weight": spec.weights, "y": out.dtype} | ({"residual": residual.dtype} if residual else {})


def _vectors(outputs: int, dots: tuple[Dot, ...], blocked: bool, target: Target) -> tuple[Vector, Vector]:
    """Vectors of output channels (of a group): as wide as the target has them, the last one no wider than it must be.

    A plain row ends with its last channel; in a block there is room for a whole vector.
    """

    def fitting(channels: int) -> Vector:
        dot = narrowest(dots, channels)
        lanes = dot.lanes if dot else next((n for n in (4, 8) if channels <= n < target.lanes), target.lanes)
        ahead = dot.ahead if dot else _FLOATS if target.lanes == _FLOATS else 1
        return Vector(lanes, dot, lanes if blocked else min(lanes, channels), ahead)

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
    llvm: str = "",
) -> Kernel:
    """The kernel of a layer with weights over (x, arrays..., residual if any, y); ``emit`` gets the buffers by name."""
    buffers = [("x", x.bits, x.numel)]
    buffers += [(key, str(array.dtype), array.size) for key, array in arrays.items()]
    if residual is not None:
        buffers.append(("residual", residual.bits, residual.numel))
    buffers.append(("y", out.bits, out.numel))
    names = [buffer[0] for buffer in buffers]
    function = b.kernel(name, buffers, lambda *args: emit(dict(zip(names, args, strict=True))), llvm)
    return Kernel(function, tuple(arrays.values()), note)


def shifted_bias(spec: Conv2d | Dense, constants: Constants) -> np.ndarray:
    """``sum (x - z) w + bias = sum x w + (bias - z sum w)``; int32 sums wrap, so the new bias may, too.

    Stored in 16 bits where all fit: of a small network's file, biases are a tenth.
    """
    if spec.x is None and constants.multiplier is not None:
        return (constants.bias / constants.multiplier.astype(np.float64)).astype(np.float32)  # scaled with the sum
    if spec.x is None:
        return constants.bias.astype(np.float32)
    sums = constants.weight.reshape(constants.weight.shape[0], -1).sum(axis=1, dtype=np.int64)
    bias = (constants.bias.astype(np.int64) - spec.x.zero_point * sums).astype(np.int32)
    small = np.iinfo(np.int16)
    fits = small.min <= bias.min(initial=0) and bias.max(initial=0) <= small.max
    return bias.astype(np.int16) if fits else bias
