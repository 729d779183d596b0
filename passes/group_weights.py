"""Int4 weights with an integer scale for each group of neighbours: along the reduction of a dense layer, along the
input channels of each element of a convolution's window, along the rows of a table that are looked up.

In QDQ form such a weight is an int16 constant, the product of code and group scale, whose scale is that of the output
channel or row: ``real = s[n] * (k[n, g] * code)``. Folding takes the product apart again.
"""

from __future__ import annotations

from math import gcd, prod

import numpy as np

from qcompile.passes.base import shape_of
from qcompile.passes.chain import Chain
from qcompile.passes.quantized import QuantizedConstant

QMIN, QMAX = -8, 7
SCALE_MAX = 255
STEP = 8  # what a group is a multiple of: two steps of any dot product
TABLE = 65536  # elements from which a table is int4: a smaller one saves less than 32 KB, and costs accuracy
_AXES = {"dense": 1, "conv": 0, "gather": 0}  # kind of a layer -> axis of output channels, or of rows, in its weight
_BLOCK = 16  # channels side by side in images: groups are whole blocks, or equal parts of one


def group_refusal(chain: Chain, group: int) -> str | None:
    """Why a layer cannot have int4 weights by groups, None if it can."""
    if chain.kind not in _AXES:
        return f"int4 weights are for convolutions, matrix products with a constant and tables, not {chain.kind}"
    if chain.kind == "conv" and (reason := _conv_refusal(chain, group)):
        return reason
    if group < STEP or group % STEP:
        return f"groups of {group} weights are not a multiple of {STEP}"
    if chain.kind == "conv":
        return None
    extent = shape_of(chain.weight)[1 - _AXES[chain.kind]]
    if chain.kind == "gather" and (elements := prod(shape_of(chain.weight))) < TABLE:
        return f"a table of {elements} elements; int4 pays from {TABLE}"
    if extent % group:
        what = "inputs" if chain.kind == "dense" else "columns"
        return f"{extent} {what} are not a multiple of the group size {group}"
    return None


def fitting_group(chain: Chain, group: int) -> int:
    """The size of groups for a layer if ``group`` is wished for: of a convolution, what divides its channels, too."""
    return gcd(shape_of(chain.weight)[1], group) if chain.kind == "conv" else group


def _conv_refusal(chain: Chain, group: int) -> str | None:
    outputs, inputs, *_ = shape_of(chain.weight)
    groups = int(chain.call.attrs.groups)
    if inputs % _BLOCK:
        return f"{inputs} input channels are not a multiple of {_BLOCK}"
    if inputs % group:
        return f"{inputs} input channels are not a multiple of the group size {group}"
    if group % _BLOCK and _BLOCK % group:
        return f"groups of {group} weights are neither whole blocks of {_BLOCK} channels nor equal parts of one"
    if groups > 1 and outputs // groups % _BLOCK:
        return f"{outputs // groups} channels of each of its groups are not a multiple of {_BLOCK}"
    return None


def grouped_rows(chain: Chain, weight: np.ndarray) -> np.ndarray:
    """The weight of a layer that ``group_refusal`` lets pass as (N, K): K is what groups lie along."""
    return rows_of(weight, _AXES[chain.kind])


def rows_of(weight: np.ndarray, axis: int) -> np.ndarray:
    """A weight as (N, K): of (K, N) for ``axis`` 1; of (N, K) or (O, I, KH, KW) for 0, then K is (KH, KW, I)."""
    rows = weight.T if axis == 1 else np.moveaxis(weight, 1, -1)
    return np.ascontiguousarray(rows).reshape(len(rows), -1)


def of_rows(rows: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The inverse of ``rows_of`` for a weight of this shape."""
    if axis == 1:
        return np.ascontiguousarray(rows.T)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1))


def grouped_codes(
    weight: np.ndarray, scale: np.ndarray, group_scale: np.ndarray, moves: np.ndarray | None = None
) -> np.ndarray:
    """Int4 codes ``clip(round_half_even(w / (s k)) + moves, -8, 7)`` of (N, K) weights, int8.

    scale: (N,) float32, or (1,). group_scale: (N, groups) uint8. moves: (N, K).
    """
    steps = np.asarray(scale, np.float64).reshape(-1, 1) * group_scale
    wide = np.repeat(steps, weight.shape[1] // group_scale.shape[1], axis=1)
    nearest = np.rint(weight.astype(np.float64) / wide)
    return np.clip(nearest if moves is None else nearest + moves, QMIN, QMAX).astype(np.int8)


def quantize_groups(
    weight: np.ndarray,
    scale: np.ndarray,
    group_scale: np.ndarray,
    group: int,
    axis: int = 1,
    moves: np.ndarray | None = None,
) -> QuantizedConstant:
    """The int16 constant of a weight: codes times group scales.

    weight, moves: as in ``rows_of``. scale: (N,) or (1,) float32. group_scale: (N, K / group) uint8.
    """
    rows, moved = (None if x is None else rows_of(x, axis) for x in (weight, moves))
    codes = grouped_codes(rows, scale, group_scale, moved).astype(np.int16)
    product = codes * np.repeat(group_scale, group, axis=1).astype(np.int16)
    full = np.broadcast_to(np.asarray(scale, np.float32), (len(rows),))
    return QuantizedConstant(
        of_rows(product, weight.shape, axis), np.ascontiguousarray(full), np.zeros(len(rows), np.int16), axis
    )


def split_groups(codes: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray] | str:
    """Int16 codes (N, K) as int4 codes (N, K) int8 times group scales (N, K / group) uint8; or why they are not.

    Any way to take the product apart gives the same sums; of several, the one with the largest scales.
    """
    outputs, inputs = codes.shape
    parts = codes.astype(np.int64).reshape(outputs, inputs // group, group)
    common = np.maximum(np.gcd.reduce(parts, axis=2), 1)
    scale = np.zeros_like(common)
    for divisor in range(-QMIN, 0, -1):
        new = common // divisor
        quotients = parts // new[..., None].clip(1)
        fits = (common % divisor == 0) & (new <= SCALE_MAX)
        fits &= (quotients.min(axis=2) >= QMIN) & (quotients.max(axis=2) <= QMAX)
        scale = np.where(fits, new, scale)
    if not scale.all():
        return f"the weight's codes are not int4 times a scale up to {SCALE_MAX} for each group of {group}"
    return (parts // scale[..., None]).reshape(codes.shape).astype(np.int8), scale.astype(np.uint8)
