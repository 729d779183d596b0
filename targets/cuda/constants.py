"""The constants of products: how weights, biases and scales lie, and what may be said of sums before there are any."""

from __future__ import annotations

import numpy as np

from qcompile.ops import Affine
from qcompile.targets.cuda.tiles import STEP, Tile


def pack_weights(weight: np.ndarray, pitch: int, groups: int, tile: Tile) -> np.ndarray:
    """(O, I, KH, KW) as bytes (channels, K), int8: taps by ``pitch`` channels; zeros fill up rows, groups and tiles."""
    o, i, kh, kw = weight.shape
    wide = np.zeros((o, kh, kw, pitch), weight.dtype)
    wide[..., :i] = weight.transpose(0, 2, 3, 1)
    rows = wide.view(np.int8).reshape(groups, o // groups, -1)
    length, steps = rows.shape[2], -(-rows.shape[2] // STEP) * STEP
    packed = np.zeros((groups, -(-rows.shape[1] // tile.channels) * tile.channels, steps), np.int8)
    packed[:, : rows.shape[1], :length] = rows
    return packed.reshape(-1, steps)


def pack_groups(rows: np.ndarray, scales: np.ndarray, groups: int) -> np.ndarray:
    """Int4 weights as bytes: two codes + 8 each, then the scales of their groups; see ``device/grouped.cuh``.

    rows: (channels, K) int8 as ``pack_weights`` has them. scales: (O, K' / size), uint8, of groups of ``size``
    neighbours along k; what is behind the last one multiplies zeros.
    """
    channels, length = rows.shape
    codes = (rows + 8).astype(np.uint8).reshape(channels, -1, 2, 2, 4, 4)  # steps, halves, lower or upper, lanes, bytes
    words = (codes[:, :, :, 0] | codes[:, :, :, 1] << 4).transpose(0, 1, 3, 2, 4)
    wide = np.zeros((groups, channels // groups, scales.shape[1]), np.uint8)
    wide[:, : scales.shape[0] // groups] = scales.reshape(groups, -1, scales.shape[1])
    return np.concatenate([words.reshape(-1), wide.reshape(channels, -1).T.reshape(-1)]).view(np.int8)


def has_own_groups(groups: int, inputs: int, outputs: int) -> bool:
    """Whether groups of so many channels begin where whole words do, so that they are products of their own."""
    return groups == 1 or (inputs % 4 == 0 and outputs % 4 == 0)


def padded(values: np.ndarray, count: int, groups: int = 1) -> np.ndarray:
    """One value a channel, each group filled up with zeros, to ``count`` in all."""
    result = np.zeros((groups, count // groups), values.dtype)
    result[:, : values.size // groups] = values.reshape(groups, -1)
    return result.reshape(-1)


def shifted_bias(bias: np.ndarray, weight: np.ndarray, x: Affine) -> np.ndarray:
    """``sum (x - z) w + bias = sum x w + (bias - z sum w)``; int32 sums wrap around, so the new bias may, too."""
    sums = weight.reshape(weight.shape[0], -1).sum(axis=1, dtype=np.int64)
    return (bias.astype(np.int64) - x.zero_point * sums).astype(np.int32)


def has_small_sums(bias: np.ndarray, weight: np.ndarray, x: Affine) -> bool:
    """Whether no input makes a sum that a float with 23 bits cannot count: all lie in [-2^22, 2^22)."""
    terms = weight.reshape(weight.shape[0], -1).astype(np.int64)
    ends = [terms * (code - x.zero_point) for code in (x.qmin, x.qmax)]
    least, most = (end.sum(axis=1) + bias for end in (np.minimum(*ends), np.maximum(*ends)))
    return bool(least.min() >= -(2**22) and most.max() < 2**22)
