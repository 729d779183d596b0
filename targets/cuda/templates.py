"""The schedule templates of GPUs: tiles of products, strips of depthwise convolutions.

A GPU's blocks share out images and pixels alike, so another batch is another problem. Templates take a ``CudaTarget``
of one architecture; their kernels come with the constants as they take them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from qcompile.ops import Conv2d
from qcompile.targets.cuda import tile_time
from qcompile.targets.cuda.architectures import Architecture, architecture
from qcompile.targets.cuda.contract import MORE_REGISTERS, Shape, contract, contract_floats, conv_shape, problem_of
from qcompile.targets.cuda.depthwise import Strip, choose_strip, depthwise, strip_cycles, strips
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.cuda.storage import Storage, channels_last, rows_last
from qcompile.targets.cuda.tiles import Problem, Tile, tiles
from qcompile.targets.kernels.template import Template
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import Storage as Plain

CONV2D, DENSE, DEPTHWISE = "conv2d_cuda", "dense_cuda", "depthwise_conv2d_cuda"
CONV2D_INT4, DENSE_INT4 = "conv2d_int4_cuda", "dense_int4_cuda"
CONV2D_FLOAT, DENSE_FLOAT = "conv2d_float_cuda", "dense_float_cuda"  # of every type that Tensor Cores multiply


def stored(tensor: Plain) -> Storage:
    """How a GPU's kernels have a workload's tensor: an image, or a matrix as (batch, rows, K)."""
    return (rows_last if len(tensor.shape) == 3 else channels_last)(tensor.shape, tensor.dtype)


def shape_of(workload: Workload) -> Shape:
    x, out = stored(workload.x), stored(workload.out)
    if isinstance(workload.spec, Conv2d):
        return conv_shape(workload.spec, (workload.weight[2], workload.weight[3]), x, out)
    return Shape(x.rows, 1, 1, 1, 1)


def _gpu(target: CudaTarget) -> Architecture:
    return architecture(target.architecture)


def _four(weight: tuple[int, ...]) -> tuple[int, ...]:
    return (*weight, *(1,) * (4 - len(weight)))


@lru_cache(maxsize=512)
def _problem(workload: Workload) -> Problem:
    return problem_of(shape_of(workload), _four(workload.weight), stored(workload.x))


def _built(operator: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """``Template.build`` of a function that takes shapes and storages."""

    def build(
        spec: Any, constants: Any, x: Plain, out: Plain, residual: Plain | None, target: CudaTarget, knobs: Any
    ) -> Any:
        workload = Workload.of(operator, spec, constants.weight.shape, x, out, residual, 1)
        storages = (stored(workload.x), stored(workload.out), workload.residual and stored(workload.residual))
        numbers = (constants.weight.reshape(_four(constants.weight.shape)), constants.bias, constants.multiplier)
        scales = {"group_scale": constants.group_scale} if spec.group else {}
        return kernel(spec, shape_of(workload), *numbers, *storages, knobs, _gpu(target), **scales)

    return build


def _floats(
    spec: Any,
    shape: Any,
    weight: Any,
    bias: Any,
    multiplier: Any,
    x: Any,
    out: Any,
    residual: Any,
    tile: Any,
    arch: Any,
) -> Any:
    return contract_floats(spec, shape, weight, bias, x, out, residual, tile, arch, multiplier)


def _rated(workload: Workload, target: CudaTarget) -> Architecture:
    return _gpu(target).rated(workload.x.dtype)


def _more_registers(workload: Workload) -> int:
    return MORE_REGISTERS if workload.group or workload.x.dtype == "float32" else 0


def _tiles(workload: Workload, target: CudaTarget) -> Iterator[Tile]:
    yield from dict.fromkeys((_default_tile(workload, target), *tiles(_problem(workload), _gpu(target))))


def _default_tile(workload: Workload, target: CudaTarget) -> Tile:
    return tile_time.choose_tile(_problem(workload), _rated(workload, target), _more_registers(workload))


def _tile_cycles(workload: Workload, target: CudaTarget, tile: Tile) -> float:
    return tile_time.cycles(_problem(workload), tile, _rated(workload, target))


def _tile_extents(workload: Workload, target: CudaTarget) -> dict[str, int]:
    problem = _problem(workload)
    return {"channels": problem.channels, "pixels": problem.pixels}


def _default_strip(workload: Workload, target: CudaTarget) -> Strip:
    return choose_strip(shape_of(workload), stored(workload.x).pitch, _gpu(target))


def _strips(workload: Workload, target: CudaTarget) -> Iterator[Strip]:
    return strips(shape_of(workload))


def _strip_cycles(workload: Workload, target: CudaTarget, strip: Strip) -> float:
    return strip_cycles(shape_of(workload), stored(workload.x).pitch, strip, _gpu(target))


def _strip_extents(workload: Workload, target: CudaTarget) -> dict[str, int]:
    return {"pixels": workload.out.image[3] * workload.out.image[2] * workload.batch}


def _instructions(workload: Workload, target: CudaTarget) -> str:
    return target.architecture


_TILE = (_default_tile, _tiles, _tile_cycles, _tile_extents, _instructions)
_STRIP = (_default_strip, _strips, _strip_cycles, _strip_extents, _instructions)
TEMPLATES: dict[str, Template] = {
    CONV2D: Template(1, Tile, _built(CONV2D, contract), *_TILE),
    DENSE: Template(1, Tile, _built(DENSE, contract), *_TILE),
    CONV2D_INT4: Template(1, Tile, _built(CONV2D_INT4, contract), *_TILE),
    DENSE_INT4: Template(1, Tile, _built(DENSE_INT4, contract), *_TILE),
    CONV2D_FLOAT: Template(1, Tile, _built(CONV2D_FLOAT, _floats), *_TILE),
    DENSE_FLOAT: Template(1, Tile, _built(DENSE_FLOAT, _floats), *_TILE),
    DEPTHWISE: Template(1, Strip, _built(DEPTHWISE, depthwise), *_STRIP),
}
