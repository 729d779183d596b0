"""Element-wise layers, tables, concatenation of different codes, softmax, channel shuffle."""

from __future__ import annotations

import numpy as np

from qcompile.ops import Affine, Binary, ChannelShuffle, Concat, Gather, Lookup, Requantize, Softmax
from qcompile.reference.arithmetic import centered, exact_int32, finish, out_scale, ratio, scaled
from qcompile.reference.arithmetic import requantize as requantize_codes

SOFTMAX_MAX_ELEMENTS = 511  # 511 * 2^22 < 2^31 <= 512 * 2^22: the sum of the exponentials stays in int32


def binary(spec: Binary, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a op b`` with numpy broadcasting."""
    if (spec.a is None) != (spec.b is None):
        raise ValueError(f"{spec.kind} of codes and float32")
    with np.errstate(over="ignore", invalid="ignore"):
        return finish(_combine(spec, a, b), spec.epilogue)


def _combine(spec: Binary, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if spec.a is None or spec.b is None:
        return {"add": np.add, "subtract": np.subtract, "multiply": np.multiply}[spec.kind](a, b)
    unit = out_scale(spec.epilogue)
    if spec.kind == "multiply":
        return scaled(centered(a, spec.a) * centered(b, spec.b), ratio(spec.a.scale * spec.b.scale, unit))
    left = scaled(centered(a, spec.a), ratio(spec.a.scale, unit))
    right = scaled(centered(b, spec.b), ratio(spec.b.scale, unit))
    return {"add": np.add, "subtract": np.subtract}[spec.kind](left, right)


def lookup(spec: Lookup, x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """x codes; table (256,), entry 0 for the smallest code."""
    return table[x.astype(np.int32) - spec.x.qmin]


def requantize(spec: Requantize, x: np.ndarray) -> np.ndarray:
    return requantize_codes(x, spec.x, spec.out)


def concat(spec: Concat, *inputs: np.ndarray) -> np.ndarray:
    """Inputs whose Affine differs from ``out`` are requantized."""
    codes = [x if q == spec.out else requantize_codes(x, q, spec.out) for x, q in zip(inputs, spec.inputs, strict=True)]
    return np.concatenate(codes, axis=spec.axis)


def exponentials(x: Affine) -> np.ndarray:
    """The table argument of ``Softmax``: ``round(2^22 exp(-s_x d))`` for d = 0 ... 255, int32 (256,)."""
    return np.rint(2.0**22 * np.exp(-np.float64(x.scale) * np.arange(256))).astype(np.int32)


def softmax(spec: Softmax, x: np.ndarray, exp_table: np.ndarray) -> np.ndarray:
    if x.shape[spec.axis] > SOFTMAX_MAX_ELEMENTS:
        raise ValueError(
            f"softmax over {x.shape[spec.axis]} elements; at most {SOFTMAX_MAX_ELEMENTS} fit its int32 sum"
        )
    codes = x.astype(np.int32)
    e = exp_table[codes.max(axis=spec.axis, keepdims=True) - codes]
    total = exact_int32(e.sum(axis=spec.axis, keepdims=True, dtype=np.int64))
    factor = ratio(1, out_scale(spec.epilogue)) / total.astype(np.float32)
    return finish(scaled(e, factor), spec.epilogue)


def channel_shuffle(spec: ChannelShuffle, x: np.ndarray) -> np.ndarray:
    n, c, *spatial = x.shape
    grouped = x.reshape(n, spec.groups, c // spec.groups, *spatial)
    return grouped.swapaxes(1, 2).reshape(x.shape)


def gather(
    spec: Gather,
    table: np.ndarray,
    scale: np.ndarray,
    indices: np.ndarray,
    *rest: np.ndarray,
) -> np.ndarray:
    """rest: group_scale if spec.group, addend and addend_scale if there is one."""
    if spec.group:
        table = table * np.repeat(rest[0], spec.group, axis=1).astype(np.int16)
        rest = rest[1:]
    rows = np.mod(indices, table.shape[0])
    y = table[rows].astype(np.float32) * scale[rows][..., None]
    if rest:
        addend, addend_scale = rest
        flat = y.reshape(-1, *addend.shape)  # rows repeat after R
        flat += addend.astype(np.float32) * addend_scale[:, None]
    return y
