"""A convolution or a matmul reduced to the one loop nest that both share: pixels x output channels x reduction steps.

A reduction step takes ``group`` neighbouring elements of each pixel (the group of the target's dot product, 1 in
float32) and one weight vector of each vector of output channels. Which elements, and in which order, is decided here;
``contract`` writes the code and ``pack`` lays the weights out in the order in which that code reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from qcompile.ops import Conv2d
from qcompile.targets.storage import BLOCK, Storage

_UNROLL = 4  # reduction steps written out in the innermost loop: more only costs registers
_ROW = 24  # steps of a window row of an image with few channels that are read as one run


@dataclass(frozen=True, slots=True)
class Side:
    """One operand seen from a tile: element = origin + n * batch + y * row + x * pixel + (16-channel block) * block."""

    batch: int
    row: int
    pixel: int
    origin: int
    block: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Part of the reduction: from ``start`` on, nested loops of (extent, stride), then ``steps`` adjacent groups.

    missing: elements at the end of each group that are not to be read: there, memory may hold NaN.
    inner: of weights by groups, how many of the innermost loops run within a group.
    """

    start: int
    loops: tuple[tuple[int, int], ...]
    steps: int
    missing: int = 0
    inner: int = 0

    @property
    def length(self) -> int:
        return prod(extent for extent, _ in self.loops) * self.steps


@dataclass(frozen=True, slots=True)
class Body:
    """Reduction steps written out, in a loop of ``times`` repeats that are ``stride`` elements apart.

    step: number of the first step within one repeat of the loops around. starts: first element of each step.
    """

    step: int
    times: int
    stride: int
    starts: tuple[int, ...]


def written_out(segment: Segment, group: int, unroll: int = _UNROLL) -> tuple[tuple[tuple[int, int], ...], list[Body]]:
    """The outer loops (extent, stride) of a segment, and what is in the innermost: bodies of at most ``unroll`` steps.

    Loops are written out from the innermost on; where the last of them does not divide, a smaller body follows.
    """
    loops = [*segment.loops, (segment.steps, group)]
    starts: tuple[int, ...] = (0,)
    while loops:
        extent, stride = loops.pop()
        copies = min(extent, max(1, unroll // len(starts)))
        times, rest = divmod(extent, copies)

        def repeated(first: int, count: int, stride: int = stride, starts: tuple[int, ...] = starts) -> tuple[int, ...]:
            return tuple(i * stride + start for i in range(first, first + count) for start in starts)

        if copies < extent:
            whole = Body(0, times, copies * stride, repeated(0, copies))
            remainder = Body(times * len(whole.starts), 1, 0, repeated(times * copies, rest))
            return tuple(loops), [whole, remainder] if rest else [whole]
        starts = repeated(0, extent)
    return (), [Body(0, 1, 0, starts)]


def neighbours(starts: Sequence[int], group: int, most: int) -> list[list[int]]:
    """Steps by their first elements, cut into runs of at most ``most`` whose elements follow each other."""
    runs: list[list[int]] = []
    for start in starts:
        if runs and len(runs[-1]) < most and start == runs[-1][-1] + group:
            runs[-1].append(start)
        else:
            runs.append([start])
    return runs


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """batch x height x width pixels, ``outputs`` channels in each of ``groups`` groups.

    group_stride: elements of x from one group's channels to the next.
    group: elements of a step.
    index: (steps, group) int: the element of an output channel's flat (I, KH, KW) weights that meets each input
    element; -1 where the input element is padding or belongs to something else, and meets a zero.
    overlapping: whether the elements of one run of steps reach into the next pixel's.
    """

    batch: int
    height: int
    width: int
    outputs: int
    groups: int
    group_stride: int
    group: int
    segments: tuple[Segment, ...]
    index: np.ndarray
    x: Side
    out: Side
    residual: Side | None
    overlapping: bool

    @property
    def steps(self) -> int:
        return len(self.index)


def image_side(storage: Storage, stride: tuple[int, int] = (1, 1), top: int = 0, left: int = 0) -> Side:
    """A blocked image, starting ``top`` rows and ``left`` pixels before its first one."""
    return Side(
        batch=storage.blocks * storage.plane,
        row=stride[0] * storage.row,
        pixel=stride[1] * storage.block,
        origin=storage.pixel(0, 0, -top, -left),
        block=storage.plane,
    )


def matrix_side(rows: int, columns: int) -> Side:
    """A plain (rows, columns) matrix: its rows are pixels of one image row."""
    return Side(batch=rows * columns, row=rows * columns, pixel=columns, origin=0, block=BLOCK)


@dataclass(frozen=True, slots=True)
class Runs:
    """How runs of adjacent elements are cut into groups of ``group``.

    exact: nothing behind a run is read. Else its last group may reach beyond it, where a weight of zero meets codes.
    """

    group: int
    exact: bool

    def cut(
        self, start: int, loops: tuple[tuple[int, int], ...], positions: np.ndarray
    ) -> tuple[list[Segment], list[np.ndarray]]:
        """The segments of a run repeated by ``loops``; for each, ``Reduction.index`` of its steps.

        positions: (..., elements), the weight's element for each element of each run.
        """
        whole, rest = divmod(positions.shape[-1], self.group)
        if not rest or not self.exact:
            return [Segment(start, loops, whole + (rest > 0))], [_indices(positions, self.group)]
        size = whole * self.group
        last = Segment(start + size, loops, 1, self.group - rest), _indices(positions[..., size:], self.group)
        if not whole:
            return [last[0]], [last[1]]
        return [Segment(start, loops, whole), last[0]], [_indices(positions[..., :size], self.group), last[1]]


def conv_reduction(
    spec: Conv2d, x: Storage, weight_shape: tuple[int, ...], out: Storage, residual: Storage | None, group: int
) -> Reduction:
    """``spec`` over a blocked ``x`` whose border holds its padding. weight_shape: (O, I / groups, KH, KW).

    Groups must be whole channel blocks on both sides (``block_diagonal`` makes one group of others).
    """
    outputs, inputs, kh, kw = weight_shape
    batch, _, height, width = out.image
    pointwise = kh == kw == 1 and spec.strides == (1, 1) and not any(spec.padding)
    if pointwise and all(s.contiguous_pixels for s in (x, out, residual) if s is not None):
        height, width = 1, height * width
    runs = Runs(group, exact=spec.x is None)
    if spec.group:
        segments, index = _grouped_channels(inputs, (kh, kw), spec.dilation, x, spec.group, group)
    elif x.block == BLOCK:
        segments, index = _blocked_channels(inputs, (kh, kw), spec.dilation, x, runs)
    else:
        segments, index = _few_channels(inputs, (kh, kw), spec.dilation, x, runs)
    pixel = spec.strides[1] * x.block
    return Reduction(
        batch=batch,
        height=height,
        width=width,
        outputs=outputs // spec.groups,
        groups=spec.groups,
        group_stride=inputs // BLOCK * x.plane,
        group=group,
        segments=tuple(segments),
        index=np.concatenate(index),
        x=image_side(x, spec.strides, spec.padding[0], spec.padding[1]),
        out=image_side(out),
        residual=image_side(residual) if residual else None,
        overlapping=any(segment.steps * group > pixel for segment in segments),
    )


def dense_reduction(rows: int, inputs: int, outputs: int, residual: bool, runs: Runs, weights: int = 0) -> Reduction:
    """(rows, inputs) x (inputs, outputs), all plain. weights: of a group that shares a scale, 0 if none does."""
    segments, index = runs.cut(0, (), np.arange(inputs))
    if weights:
        segments = [Segment(0, ((inputs // weights, weights),), weights // runs.group)]
    return Reduction(
        batch=1,
        height=1,
        width=rows,
        outputs=outputs,
        groups=1,
        group_stride=0,
        group=runs.group,
        segments=tuple(segments),
        index=np.concatenate(index),
        x=matrix_side(rows, inputs),
        out=matrix_side(rows, outputs),
        residual=matrix_side(rows, outputs) if residual else None,
        overlapping=False,
    )


def _indices(weights: np.ndarray, group: int) -> np.ndarray:
    """(..., elements) -> (steps, group), each run of elements filled up with -1."""
    missing = -weights.shape[-1] % group
    padded = np.concatenate([weights, np.full((*weights.shape[:-1], missing), -1)], axis=-1)
    return padded.reshape(-1, group)


def _blocked_channels(
    inputs: int, window: tuple[int, int], dilation: tuple[int, int], x: Storage, runs: Runs
) -> tuple[list[Segment], list[np.ndarray]]:
    """Channel block, window row, window column, groups within the block; the last block as far as it has channels."""
    kh, kw = window
    taps = ((kh, dilation[0] * x.row), (kw, dilation[1] * x.block))
    position = np.arange(inputs * kh * kw).reshape(inputs, kh, kw)
    whole, rest = divmod(inputs, BLOCK)
    segments: list[Segment] = []
    index: list[np.ndarray] = []
    if whole:
        blocks = position[: whole * BLOCK].reshape(whole, BLOCK, kh, kw)
        segments, index = runs.cut(0, ((whole, x.plane), *taps), blocks.transpose(0, 2, 3, 1))
    if rest:
        more = runs.cut(whole * x.plane, taps, position[whole * BLOCK :].transpose(1, 2, 0))
        segments, index = segments + more[0], index + more[1]
    return segments, index


def _grouped_channels(
    inputs: int, window: tuple[int, int], dilation: tuple[int, int], x: Storage, weights: int, group: int
) -> tuple[list[Segment], list[np.ndarray]]:
    """Window row, window column, groups of ``weights`` channels: whole blocks, or equal parts of one.

    Here the weights of an output channel are (KH, KW, I), so that groups lie side by side.
    """
    kh, kw = window
    taps = ((kh, dilation[0] * x.row), (kw, dilation[1] * x.block))
    index = [np.arange(kh * kw * inputs).reshape(-1, group)]
    if weights < BLOCK:
        loops = (*taps, (inputs // BLOCK, x.plane), (BLOCK // weights, weights))
        return [Segment(0, loops, weights // group)], index
    blocks = weights // BLOCK
    loops = (*taps, (inputs // weights, blocks * x.plane), (blocks, x.plane))
    return [Segment(0, loops, BLOCK // group, inner=1)], index


def _few_channels(
    inputs: int, window: tuple[int, int], dilation: tuple[int, int], x: Storage, runs: Runs
) -> tuple[list[Segment], list[np.ndarray]]:
    """A block of all C <= 4 channels: a window row is one run of KW * C elements, so a group may span pixels."""
    kh, kw = window
    position = np.arange(inputs * kh * kw).reshape(inputs, kh, kw).transpose(1, 2, 0)
    if dilation[1] == 1 and kw * inputs <= _ROW * runs.group:
        return runs.cut(0, ((kh, dilation[0] * x.row),), position.reshape(kh, kw * inputs))
    return runs.cut(0, ((kh, dilation[0] * x.row), (kw, dilation[1] * x.block)), position)


def block_diagonal(weight: np.ndarray, groups: int) -> np.ndarray:
    """Grouped weights (O, I / groups, KH, KW) as those of one group (O, I, KH, KW), zero where groups do not meet."""
    outputs, inputs, *window = weight.shape
    dense = np.zeros((outputs, inputs * groups, *window), weight.dtype)
    per_group = outputs // groups
    for g in range(groups):
        dense[g * per_group : (g + 1) * per_group, g * inputs : (g + 1) * inputs] = weight[
            g * per_group : (g + 1) * per_group
        ]
    return dense


def pack(weight: np.ndarray, reduction: Reduction, lanes: int, last_lanes: int, tile_vectors: int) -> np.ndarray:
    """Weights (O, ...) in reading order: group, tile of vectors, step, vector of the tile, lane, element of the step.

    Vectors have ``lanes`` output channels, the last of a group ``last_lanes``.
    """
    flat = weight.reshape(reduction.groups, reduction.outputs, -1)
    vectors = -(-reduction.outputs // lanes)
    padded = np.zeros((reduction.groups, vectors * lanes, flat.shape[2] + 1), weight.dtype)  # last stays zero: index -1
    padded[:, : reduction.outputs, :-1] = flat
    ordered = padded[:, :, reduction.index].transpose(0, 2, 1, 3)  # [group][step][output][element]
    channels = (vectors - 1) * lanes + last_lanes
    tiles = []
    for g in range(reduction.groups):
        for start in range(0, channels, tile_vectors * lanes):
            tiles.append(ordered[g, :, start : min(start + tile_vectors * lanes, channels)].reshape(-1))
    return np.concatenate(tiles)


def pad_channels(values: np.ndarray, reduction: Reduction, lanes: int, last_lanes: int) -> np.ndarray:
    """(O,) biases or multipliers with every group's channels filled up to whole vectors."""
    channels = (-(-reduction.outputs // lanes) - 1) * lanes + last_lanes
    padded = np.zeros((reduction.groups, channels), values.dtype)
    padded[:, : reduction.outputs] = values.reshape(reduction.groups, reduction.outputs)
    return padded.reshape(-1)
