"""The schedule templates of CPUs: which knobs the kernels of an operator have, which are legal, how good they look."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from qcompile.ops import Conv2d
from qcompile.targets.kernels import conv, depthwise, int4, tiling
from qcompile.targets.kernels.depthwise import Strip
from qcompile.targets.kernels.template import Template
from qcompile.targets.kernels.tiling import Tile
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target

SHUFFLES = ("avx512vbmi",)  # features that change how codes are shuffled


@lru_cache(maxsize=512)
def _problem(workload: Workload, target: Target) -> conv.Problem:
    rest = (workload.weight, workload.x, workload.out, workload.residual, target)
    if isinstance(workload.spec, Conv2d):
        return conv.conv2d_problem(workload.spec, *rest)
    return conv.dense_problem(workload.spec, *rest)


def _default_tile(workload: Workload, target: Target) -> Tile:
    return _problem(workload, target).default_tile()


def _tiles(workload: Workload, target: Target) -> Iterator[Tile]:
    p = _problem(workload, target)
    r = p.reduction
    tiles = tiling.legal_tiles(r.height, r.width, p.vectors, p.widened, r.overlapping, target, p.product)
    prefetches = tiling.legal_prefetches(p.vectors, r.steps, target)
    for tile, channels_outer, prefetch in itertools.product(tiles, (True, False), prefetches):
        yield replace(tile, channels_outer=channels_outer, prefetch=prefetch)


def _tile_cycles(workload: Workload, target: Target, tile: Tile) -> float:
    p = _problem(workload, target)
    r = p.reduction
    return r.batch * r.groups * p.products * tiling.tile_cycles(tile, r.height, r.width, p.vectors, r.steps, p.product)


def _int4_tiles(workload: Workload, target: Target) -> Iterator[Tile]:
    for tile, channels_outer in itertools.product(int4.legal_tiles_of(_problem(workload, target)), (True, False)):
        yield replace(tile, channels_outer=channels_outer)


def _int4_default(workload: Workload, target: Target) -> Tile:
    return int4.default_tile(_problem(workload, target), workload.group)


def _int4_cycles(workload: Workload, target: Target, tile: Tile) -> float:
    return int4.cycles(_problem(workload, target), workload.group, tile)


def _default_strip(workload: Workload, target: Target) -> Strip:
    assert isinstance(workload.spec, Conv2d)
    return depthwise.default_strip(workload.spec, workload.weight[2:], workload.out, target)


def _strips(workload: Workload, target: Target) -> Iterator[Strip]:
    for columns in depthwise.legal_columns(workload.out.image[3], target):
        yield Strip(columns)


def _strip_cycles(workload: Workload, target: Target, strip: Strip) -> float:
    assert isinstance(workload.spec, Conv2d)
    return depthwise.strip_cycles(strip, workload.spec, workload.weight[2:], workload.out, target)


def _tile_extents(workload: Workload, target: Target) -> dict[str, int]:
    problem = _problem(workload, target)
    return {"vectors": problem.vectors, "rows": problem.reduction.height, "columns": problem.reduction.width}


def _strip_extents(workload: Workload, target: Target) -> dict[str, int]:
    return {"columns": workload.out.image[3]}


def _instructions(workload: Workload, target: Target) -> str:
    """ "x86-64-v4 vpdpbusd.512 32x512": what LLVM tunes for, dot product or FMA, registers."""
    by_channel = workload.operator == "depthwise_conv2d"
    dots = target.dots_of(workload.spec.activations)
    if target.matrix and workload.integer and not by_channel and not workload.group:
        dots = (target.matrix,)
    product = dots[0].name if dots and (workload.integer or dots[0].needs) else "fma"
    shuffles = tuple(f for f in target.extras if f in SHUFFLES) if by_channel and workload.integer else ()
    words = (target.mcpu, product, f"{target.vector_registers}x{target.vector_bits}", *shuffles)
    return " ".join(words)


_TILE = (_tile_extents, _instructions)
_STRIP = (_strip_extents, _instructions)
TEMPLATES: dict[str, Template] = {
    "conv2d": Template(1, Tile, conv.conv2d, _default_tile, _tiles, _tile_cycles, *_TILE),
    "dense": Template(1, Tile, conv.dense, _default_tile, _tiles, _tile_cycles, *_TILE),
    "dense_int4": Template(1, Tile, int4.dense_int4, _int4_default, _int4_tiles, _int4_cycles, *_TILE),
    "conv2d_int4": Template(1, Tile, int4.conv2d_int4, _int4_default, _int4_tiles, _int4_cycles, *_TILE),
    "depthwise_conv2d": Template(1, Strip, depthwise.depthwise_conv2d, _default_strip, _strips, _strip_cycles, *_STRIP),
}
