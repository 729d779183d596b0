"""Knobs of one shape for another: which recorded shape is near enough, and what its knobs become there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import log2, prod
from typing import Any

import numpy as np

from qcompile.ops import Conv2d
from qcompile.targets.cuda.rows import CudaTarget
from qcompile.targets.kernels.templates import TEMPLATES
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.target import Target

LIMIT = 3.0  # distance from which on a shape says nothing about another
SLOWER = 1.1  # times the default's predicted cycles: what adapted knobs may need

# What a doubling (of flags: a difference) counts. Width and output channels decide which tiles leave no remainder, and
# a window's extents and stride what a tile loads; height, channels and groups mostly repeat the same loop more often.
# Images of few channels are read in another way than blocks of 16, and never stand for them.
_SCALE = {
    "height": 0.5,
    "width": 1.0,
    "inputs": 0.5,
    "outputs": 1.0,
    "groups": 0.5,
    "window height": 1.0,
    "window width": 1.0,
    "stride height": 1.0,
    "stride width": 1.0,
    "dilation height": 1.0,
    "dilation width": 1.0,
    "channel block": 2.0,
    "border": 0.5,
    "residual": 0.5,
    "threads": 1.0,  # they share a loop's tiles, so that fewer and smaller tiles differ in value
}


def comparable(workload: Workload) -> tuple[Any, ...]:
    """What two workloads must share for one to say anything about the other: operator and number formats."""
    return workload.operator, workload.x.dtype, workload.out.dtype, workload.spec.weights


def features(workload: Workload) -> np.ndarray:
    """A point (len(_SCALE),) float64; the distance of two shapes is the sum of absolute differences."""
    outputs, inputs, *window = workload.weight
    groups, strides, dilation = 1, (1, 1), (1, 1)
    if isinstance(workload.spec, Conv2d):
        groups, strides, dilation = workload.spec.groups, workload.spec.strides, workload.spec.dilation
        height, width = workload.out.image[2:]
    else:
        height, width, window = 1, prod(workload.out.shape[:-1]), [1, 1]
    extents = (height, width, inputs, outputs / groups, groups, *window, *strides, *dilation, max(workload.x.block, 1))
    flags = (any(workload.out.border), workload.residual is not None)
    point = [*map(log2, extents), *map(float, flags), log2(workload.threads)]
    return np.array(point) * list(_SCALE.values())


def nearest(point: np.ndarray, points: Sequence[np.ndarray]) -> list[int]:
    """Which of ``points`` are within ``LIMIT``, nearest first, earlier ones first among equals."""
    if not points:
        return []
    distances = np.abs(np.array(points) - point).sum(axis=1).round(6)
    order = np.argsort(distances, kind="stable")
    return [int(i) for i in order if distances[i] <= LIMIT]


def adapt(knobs: Any, old: Workload, new: Workload, target: Target | CudaTarget) -> Any:
    """Legal knobs for ``new``, as like those of ``old`` as can be; None if the default promises to be faster.

    A tile's extent that covered all of a smaller old layer may cover as much of the new one as pays, by the template's
    prior; so may one that is larger than the new layer. All else is kept as far as it is legal, vectors of output
    channels before rows and columns. Of another batch that changes no extent, the knobs are as good as measured.
    """
    template = TEMPLATES[new.operator]
    before, after = template.extents(old, target), template.extents(new, target)
    if old.key == new.key and before == after:
        return knobs
    tile = {name: getattr(knobs, name) for name in after}
    whole = {name for name, size in tile.items() if size >= before[name] < after[name] or size > after[name]}
    wanted = dataclasses.replace(knobs, **{name: after[name] for name in whole})
    if not template.is_legal(new, target, wanted):
        wanted = _nearest_legal(wanted, new, target, [name for name in after if name not in whole], list(after))
    limit = SLOWER * template.cycles(new, target, template.default(new, target))
    return wanted if template.cycles(new, target, wanted) <= limit else None


def _nearest_legal(
    wanted: Any, workload: Workload, target: Target | CudaTarget, kept: Sequence[str], tile: Sequence[str]
) -> Any:
    """Of the legal knobs that differ least, the fastest by the prior. tile: knobs that are extents; kept: in order."""
    template = TEMPLATES[workload.operator]
    others = [field.name for field in dataclasses.fields(wanted) if field.name not in tile]

    def misfit(knobs: Any) -> tuple[int, ...]:
        differs = [sum(getattr(knobs, name) != getattr(wanted, name) for name in others)]
        return *differs, *(getattr(knobs, name) != getattr(wanted, name) for name in kept)

    space = [(misfit(knobs), knobs) for knobs in template.space(workload, target)]
    least = min(misfit for misfit, _ in space)
    alike = [knobs for misfit, knobs in space if misfit == least]
    return min(alike, key=lambda knobs: template.cycles(workload, target, knobs))
