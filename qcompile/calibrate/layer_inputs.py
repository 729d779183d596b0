"""What layers with weights read, as rows of a matrix: a random part of them, from every calibration sample.

A convolution is a product of rows and weights as well: a row has the window of one output position, zeros where that
reaches over the border (im2col).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import relax

from qcompile.calibrate.executor import Executor
from qcompile.passes.base import op_name, shape_of
from qcompile.passes.chain import CONV, Chain
from qcompile.passes.channels import why_not

LEAST_ROWS, MOST_ROWS = 1024, 8192  # of a layer, if it has so many
NUMBERS = 1 << 22  # of all rows of a layer: in between there are as many rows, or twice as many as a row is long
LARGEST_REDUCTION = 8192  # weights of an output: what is learnt of them grows with the square


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """Rows of what a layer reads, float32.

    rows: (groups, n, K); the layer computes ``rows[g] @ weights[g].T``. sample: (n,) which sample each is of.
    """

    rows: np.ndarray
    sample: np.ndarray


def why_no_rows(chain: Chain) -> str | None:
    """Why there are no rows of what a layer reads, None if there are."""
    if chain.kind != "dense" and op_name(chain.call) not in CONV:
        return f"no rows of what a {chain.kind} reads"
    if (reason := why_not(chain.call)) is not None:
        return reason
    length = weight_rows(chain, np.empty(shape_of(chain.weight), bool)).shape[2]
    if length > LARGEST_REDUCTION:
        return f"{length} weights of an output are more than {LARGEST_REDUCTION}"
    return None


def weight_rows(chain: Chain, weight: np.ndarray) -> np.ndarray:
    """A weight, or what there is for each of its elements, as (groups, outputs, K)."""
    if chain.kind == "dense":
        return weight.T[None]
    groups = int(chain.call.attrs.groups)
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def from_rows(chain: Chain, rows: np.ndarray) -> np.ndarray:
    """``weight_rows`` undone."""
    return np.ascontiguousarray(rows[0].T) if chain.kind == "dense" else rows.reshape(shape_of(chain.weight))


def layer_inputs(
    chains: Sequence[Chain], run: Executor, feeds: Iterable[Mapping[str, np.ndarray]], samples: int
) -> dict[str, LayerInputs]:
    """Layer name -> rows, for layers that have some. Layers that read the same in the same way share them.

    run: gives the float tensors of the model that the chains are of. samples: how many feeds there are.
    """
    wanted: dict[tuple, list[Chain]] = {}
    for chain in chains:
        if why_no_rows(chain) is None:
            wanted.setdefault(_windows(chain), []).append(chain)
    parts: dict[tuple, list[np.ndarray]] = {key: [] for key in wanted}
    for number, feed in enumerate(feeds):
        tensors = {**feed, **run(dict(feed))}
        for key, (chain, *_) in wanted.items():
            values = tensors.get(chain.inputs[0].name)
            if values is not None:
                parts[key].append(_rows(chain, values, -(-_count(chain) // samples), number))
    result = {}
    for key, members in wanted.items():
        if parts[key]:
            rows = np.concatenate(parts[key], axis=1)
            sample = np.repeat(np.arange(len(parts[key])), [part.shape[1] for part in parts[key]])
            result.update(dict.fromkeys((chain.name for chain in members), LayerInputs(rows, sample)))
    return result


def _windows(chain: Chain) -> tuple:
    """What decides on the rows of a layer."""
    if chain.kind == "dense":
        return (chain.inputs[0].name,)
    attrs = chain.call.attrs
    numbers = [tuple(map(int, values)) for values in (attrs.strides, attrs.padding, attrs.dilation)]
    return (chain.inputs[0].name, *numbers, int(attrs.groups), shape_of(chain.weight)[2:])


def _count(chain: Chain) -> int:
    groups, _, length = weight_rows(chain, np.empty(shape_of(chain.weight), bool)).shape
    return min(max(LEAST_ROWS, 2 * length, NUMBERS // (groups * length)), MOST_ROWS)


def _rows(chain: Chain, values: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(groups, up to ``count``, K) of one sample, at random positions."""
    random = np.random.default_rng((zlib.crc32(chain.inputs[0].name.encode()), seed))
    if chain.kind == "dense":
        rows = values.reshape(-1, values.shape[-1])
        return rows[_positions(random, len(rows), count)][None]
    image = shape_of(chain.call)[2:]
    batch, *place = np.unravel_index(_positions(random, len(values) * math.prod(image), count), (len(values), *image))
    taps = _taps(chain.call, place)
    padding = [int(p) for p in chain.call.attrs.padding]
    rank = len(image)
    padded = np.pad(values, [(0, 0), (0, 0), *zip(padding[:rank], padding[rank:], strict=True)])
    picked = np.moveaxis(padded, 1, -1)[(batch.reshape(-1, *[1] * rank), *taps)]  # (n, taps..., C)
    groups = int(chain.call.attrs.groups)
    rows = np.moveaxis(picked, -1, 1).reshape(len(batch), groups, -1)
    return np.ascontiguousarray(rows.swapaxes(0, 1))


def _positions(random: np.random.Generator, there: int, count: int) -> np.ndarray:
    return np.arange(there) if there <= count else np.sort(random.choice(there, count, replace=False))


def _taps(call: relax.Call, place: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each axis of the padded image where the taps of each window lie, to be broadcast: (n, 1, taps, 1)."""
    attrs, kernel, result = call.attrs, shape_of(call.args[1])[2:], []
    for axis, (position, extent) in enumerate(zip(place, kernel, strict=True)):
        where = position[:, None] * int(attrs.strides[axis]) + np.arange(extent) * int(attrs.dilation[axis])
        result.append(where.reshape(-1, *[extent if i == axis else 1 for i in range(len(kernel))]))
    return result
