"""Hypothesis strategies of numbers: quantizations, codes, weights, multipliers; ordinary ones and the extremes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import numpy as np
from hypothesis import strategies as st

from qcompile.ops import Affine, Epilogue

Draw = Callable[[st.SearchStrategy], object]
CHANNELS = (1, 3, 5, 8, 16, 17, 24)  # less than a block, whole blocks, a block and a rest


def rng(draw: Draw) -> np.random.Generator:
    """Large arrays come from a drawn seed: drawing each element would take seconds."""
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@st.composite
def affines(draw: Draw, dtypes: Sequence[str] = ("uint8",)) -> Affine:
    dtype = draw(st.sampled_from(dtypes))
    low, high = (0, 255) if dtype == "uint8" else (-128, 127)
    middle = (low + high + 1) // 2
    zero_point = draw(st.sampled_from((middle, middle, low, high)) | st.integers(middle - 50, middle + 50))
    scale = draw(st.sampled_from((0.05, 0.0235, 0.0625, 0.0078125, 1.7)))
    return Affine(float(np.float32(scale)), zero_point, dtype)


def codes(draw: Draw, shape: Sequence[int], q: Affine) -> np.ndarray:
    """Any codes, or only extreme ones."""
    random = rng(draw)
    choice = draw(st.sampled_from(("any", "any", "any", "any", "low", "high", "ends")))
    if choice == "any":
        return random.integers(q.qmin, q.qmax + 1, shape).astype(q.dtype)
    ends = {"low": [q.qmin], "high": [q.qmax], "ends": [q.qmin, q.qmax]}[choice]
    return random.choice(np.array(ends, q.dtype), shape)


def floats(draw: Draw, shape: Sequence[int]) -> np.ndarray:
    return rng(draw).standard_normal(shape, np.float32)


def weights(draw: Draw, shape: Sequence[int]) -> np.ndarray:
    """int8 weights: any, all -128, all 127, or both ends."""
    random = rng(draw)
    ends = draw(st.sampled_from(((), (), (), (), (-128,), (127,), (-128, 127))))
    return random.choice(np.array(ends or range(-127, 128), np.int8), shape)


def biases(draw: Draw, channels: int, terms: int) -> np.ndarray:
    """int32 biases; the largest just leave room for a sum of ``terms`` products of codes and weights."""
    bound = draw(st.sampled_from((0, 5_000, 5_000, 5_000, 2**31 - 1 - terms * 255 * 128)))
    return rng(draw).integers(-bound, bound + 1, channels).astype(np.int32)


def multipliers(draw: Draw, channels: int, terms: int) -> np.ndarray:
    """float32 factors for sums of ``terms`` products: results in the range, ties, tiny ones, some beyond 2^31."""
    usual = 40 / (5_000 * terms**0.5)
    base = draw(st.sampled_from((usual, usual, usual, usual, 0.5, 2.0**-7, 1e-9, 1e6)))
    spread = rng(draw).uniform(0.5, 2, channels) if base == usual else np.ones(channels)
    return (base * spread).astype(np.float32)


@st.composite
def epilogues(draw: Draw, dtypes: Sequence[str] = ("uint8",), residual: bool = True, integer: bool = True) -> Epilogue:
    """integer False: of a float layer, which has no ``out`` and no residual codes."""
    clip = draw(st.sampled_from((None, None, (0.0, inf), (0.0, 6.0), (-2.0, 2.0))))
    out = draw(st.one_of(affines(dtypes), affines(dtypes), affines(dtypes), st.none())) if integer else None
    extra = draw(st.sampled_from(("", "", "codes", "float"))) if residual else ""
    return Epilogue(
        out=out,
        clip=clip,
        residual=draw(affines(dtypes)) if extra == "codes" and integer else None,
        residual_is_float=extra == "float" and out is None,
    )
