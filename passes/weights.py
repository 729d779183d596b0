"""The constants of a layer in integers: what the plan says of them, and their codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.formats import Format
from qcompile.ops import Affine
from qcompile.passes.base import array, shape_of
from qcompile.passes.chain import Chain
from qcompile.passes.quantized import QuantizedConstant
from qcompile.reference.narrow import NARROW, rounded

INT32_MAX = 2**31 - 1


def weight_axis(chain: Chain) -> int:
    """The axis of output channels in a layer's weight."""
    return {
        "conv": 0,
        "conv_transpose": 1,
        "dense": 1,
        "scale": len(shape_of(chain.weight)) - len(shape_of(chain.out)) + 1,
    }[chain.kind]


def groups_of_scales(chain: Chain) -> int:
    """How often the scales of a weight repeat over the output channels: transposed weights are (C, O/groups, ...)."""
    return int(chain.call.attrs.groups) if chain.kind == "conv_transpose" else 1


def storage_refusal(chain: Chain, row: Format) -> str | None:
    """Why the weight of a layer that computes on floats cannot be stored as a format says; None if it can."""
    tables = row.weights == "float16" and row.activations == "float32"
    if chain.kind not in ("dense", "conv", "conv_transpose") and not (tables and chain.kind == "gather"):
        return f"{row.name} is for convolutions and matrix products with a constant, not {chain.kind}"
    if array(chain.weight) is None:
        return "the weight is not a constant"
    constants = [chain.weight, *([chain.bias] if chain.kind == "gather" and chain.bias is not None else [])]
    if row.weights == "float16" and max(np.abs(array(c)).max(initial=0) for c in constants) > _FLOAT16_MAX:
        return f"a weight is beyond {_FLOAT16_MAX:g}, the largest number of float16"
    return None


_FLOAT16_MAX = float(np.finfo(np.float16).max)


def out_channels(chain: Chain) -> int:
    return shape_of(chain.out)[-1 if chain.kind == "dense" else 1]


def bias_vector(chain: Chain) -> np.ndarray:
    """The bias (O,) float32, zeros if there is none. For a constant in float form."""
    channels = out_channels(chain)
    if chain.bias is None:
        return np.zeros(channels, np.float32)
    return np.broadcast_to(array(chain.bias).reshape(-1), (channels,)).astype(np.float32)


def quantize_weight(
    weight: np.ndarray, scale: np.ndarray, axis: int, moves: np.ndarray | None = None
) -> QuantizedConstant:
    """Symmetric int8 codes ``clip(round_half_even(w / s) + moves, -128, 127)``; scale (n,) along ``axis``, or (1,)."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    along = np.asarray(scale, np.float64).reshape(shape)
    nearest = np.rint(weight.astype(np.float64) / along)
    codes = np.clip(nearest if moves is None else nearest + moves, -128, 127).astype(np.int8)
    full = np.broadcast_to(np.asarray(scale, np.float32), (weight.shape[axis],))
    return QuantizedConstant(codes, np.ascontiguousarray(full), np.zeros(weight.shape[axis], np.int8), axis)


def narrow_weight(weight: np.ndarray, scale: np.ndarray, axis: int, dtype: str) -> QuantizedConstant:
    """The nearest numbers of a type of 8-bit floats to ``w / s``; scale (n,) along ``axis``, or (1,)."""
    shape = [1] * weight.ndim
    shape[axis] = -1
    full = np.ascontiguousarray(np.broadcast_to(np.asarray(scale, np.float32), (weight.shape[axis],)))
    numbers = rounded(weight.astype(np.float32) / full.reshape(shape), dtype)
    return QuantizedConstant(numbers.astype(dtype), full, np.zeros(full.size, np.int8), axis)


def narrow_weight_scales(weight: np.ndarray, axis: int, dtype: str) -> np.ndarray:
    """(n,) float32: the largest weight of each slice of ``axis`` becomes the largest number of the type."""
    others = tuple(a for a in range(weight.ndim) if a != axis)
    scale = (np.abs(weight).max(axis=others, initial=0) / NARROW[dtype].largest).astype(np.float32)
    return np.where(scale > np.finfo(np.float32).tiny, scale, np.float32(1))


def bias_scales(chain: Chain, x: Affine, weight_scale: np.ndarray) -> np.ndarray:
    """``s_x s_w`` for each output channel, float64 (O,)."""
    repeated = np.tile(np.asarray(weight_scale, np.float64).reshape(-1), groups_of_scales(chain))
    return np.broadcast_to(x.scale * repeated, (out_channels(chain),))


def quantize_bias(chain: Chain, x: Affine, weight_scale: np.ndarray, shift: Sequence[float] = ()) -> np.ndarray:
    """The bias in units of ``s_x s_w``, int32 (O,). shift: what a plan adds to it, (O,)."""
    bias = bias_vector(chain).astype(np.float64)
    if len(shift):
        bias += np.asarray(shift, np.float64)
    codes = np.rint(bias / bias_scales(chain, x, weight_scale))
    return np.clip(codes, -INT32_MAX, INT32_MAX).astype(np.int32)


def largest_sum(weight: QuantizedConstant, bias: np.ndarray, groups: int = 1) -> int:
    """A bound on the accumulator for any input codes: the largest ``sum |q_w| * 255 + |q_b|`` of a channel."""
    sums = np.moveaxis(np.abs(weight.codes.astype(np.int64)), weight.axis, 0)
    sums = sums.reshape(sums.shape[0], -1).sum(axis=1)
    return int((np.tile(sums, groups) * 255 + np.abs(bias.astype(np.int64))).max(initial=0))
