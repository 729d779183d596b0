"""Int4 weights with an integer scale for each group of neighbours: along the reduction of a dense layer, along the
rows of a table that are looked up.

In QDQ form such a weight is an int16 constant, the product of code and group scale, whose scale is that of the output
channel or row: ``real = s[n] * (k[n, g] * code)``. Folding takes the product apart again.
"""

from __future__ import annotations

from math import prod

import numpy as np

from qcompile.passes.base import shape_of
from qcompile.passes.chain import Chain
from qcompile.passes.quantized import QuantizedConstant

QMIN, QMAX = -8, 7
SCALE_MAX = 255
STEP = 8  # what a group is a multiple of: two steps of any dot product
TABLE = 65536  # elements from which a table is int4: a smaller one saves less than 32 KB, and costs accuracy
_AXES = {"dense": 1, "gather": 0}  # kind of a layer -> axis of output channels, or of rows, in its weight


def group_refusal(chain: Chain, group: int) -> str | None:
    """Why a layer cannot have int4 weights by groups, None if it can."""
    if chain.kind not in _AXES:
        return f"w4a8 is for matrix products with a constant and for tables, not {chain.kind}"
    if group < STEP or group % STEP:
        return f"groups of {group} weights are not a multiple of {STEP}"
    extent = shape_of(chain.weight)[1 - _AXES[chain.kind]]
    if chain.kind == "gather" and (elements := prod(shape_of(chain.weight))) < TABLE:
        return f"a table of {elements} elements; int4 pays from {TABLE}"
    if extent % group:
        what = "inputs" if chain.kind == "dense" else "columns"
        return f"{extent} {what} are not a multiple of the group size {group}"
    return None


def grouped_rows(chain: Chain, weight: np.ndarray) -> np.ndarray:
    """The weight of a layer that ``group_refusal`` lets pass as (N, K): K is what groups lie along."""
    return np.ascontiguousarray(weight if _AXES[chain.kind] == 0 else weight.T)


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

    weight, moves: (K, N), or (N, K) for ``axis`` 0. scale: (N,) or (1,) float32. group_scale: (N, K / group) uint8.
    """
    rows, moved = (x if axis == 0 or x is None else x.T for x in (weight, moves))
    codes = grouped_codes(rows, scale, group_scale, moved).astype(np.int16)
    product = codes * np.repeat(group_scale, group, axis=1).astype(np.int16)
    full = np.broadcast_to(np.asarray(scale, np.float32), (len(rows),))
    codes = np.ascontiguousarray(product if axis == 0 else product.T)
    return QuantizedConstant(codes, np.ascontiguousarray(full), np.zeros(len(rows), np.int16), axis)


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
