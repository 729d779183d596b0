"""Depthwise convolutions of codes: ``device/depthwise.cuh`` with the shapes of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from qcompile.ops import Conv2d
from qcompile.targets.cuda.architectures import Architecture
from qcompile.targets.cuda.constants import has_small_sums, padded, shifted_bias
from qcompile.targets.cuda.contract import SM_80, Shape, constants_text, instantiated
from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import Kernel

_PIXELS, _THREADS = (8, 4, 2, 1), (256, 128, 64)
_UNROLLED = 26  # words of taps, for each pixel, that are written out; with more, registers do not suffice
_LATENCY = 600  # cycles of a load that waits for memory
_REGISTERS, _OWN_REGISTERS = 64 << 10, 52  # of a multiprocessor; of a thread, beside weights
_PIXEL, _WORD = 40, 16  # instructions of a pixel beside its taps, and of four taps of four channels


@dataclass(frozen=True, slots=True)
class Strip:
    """pixels: neighbours that a thread makes, whose weights it then loads once. threads: of a block."""

    pixels: int
    threads: int


def depthwise(
    spec: Conv2d,
    shape: Shape,
    weight: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    strip: Strip | None = None,
    arch: Architecture = SM_80,
) -> tuple[Kernel, tuple[np.ndarray, ...]]:
    """The kernel and its constants: buffers x, constants, residual (if there is one), y.

    weight: (C, 1, KH, KW). strip: instead of the one that ``choose_strip`` takes for ``arch``.
    """
    strip = strip or choose_strip(shape, x.pitch, arch)
    constants = {
        **shape.constants(),
        **{"C": x.pitch, "O": out.channels, "OC": out.pitch, "RC": residual.pitch if residual else 0},
        **{"ZERO": spec.x.zero_point, "STRIP": strip.pixels, "THREADS": strip.threads},
    }
    small = has_small_sums(bias, weight, spec.x)
    flags = {"SIGNED": spec.x.dtype == "int8", "RESIDUAL": residual is not None, "SMALL": small}
    parameters = ["const u32* w", "const int* bias", "const float* multiplier"]
    members, launch = (
        constants_text(constants, flags),
        f"QC_KERNEL_RESIDENT({strip.threads}, {_at_once(shape, strip, arch)})",
    )
    text = instantiated("depthwise", parameters, members, spec.epilogue, x, out, residual, launch)
    arrays = (
        pack_weights(weight, x.pitch),
        padded(shifted_bias(bias, weight, spec.x), x.pitch),
        padded(multiplier.astype(np.float32), x.pitch),
    )
    grid = -(-threads_of(shape, x.pitch, strip) // strip.threads)
    cycles = strip_cycles(shape, x.pitch, strip, arch)
    return Kernel(text, grid, strip.threads, note=f"dp4a {strip.pixels} pixels", cycles=cycles), arrays


def threads_of(shape: Shape, pitch: int, strip: Strip) -> int:
    """Of the whole kernel; each has four channels. pitch: of x."""
    return shape.images * shape.out_height * -(-shape.out_width // strip.pixels) * (pitch // 4)


def _words(shape: Shape) -> int:
    """That the taps of a channel fill."""
    return -(-shape.window[0] * shape.window[1] // 4)


def _at_once(shape: Shape, strip: Strip, arch: Architecture) -> int:
    """Blocks of a multiprocessor, by registers: weights of four channels, and the rest."""
    return max(1, min(_REGISTERS // (4 * _words(shape) + _OWN_REGISTERS), arch.threads) // strip.threads)


def strips(shape: Shape) -> Iterator[Strip]:
    """All that a layer may have."""
    for pixels, threads in product(_PIXELS, _THREADS):
        if pixels == 1 or (pixels <= shape.out_width and pixels * _words(shape) <= _UNROLLED):
            yield Strip(pixels, threads)


def strip_cycles(shape: Shape, pitch: int, strip: Strip, arch: Architecture) -> float:
    """Of one launch, predicted: rounds of threads, each as long as its instructions take, or as its loads wait."""
    words = _words(shape)
    instructions = words + strip.pixels * (words * _WORD + _PIXEL)
    at_once = _at_once(shape, strip, arch) * strip.threads
    each = -(-threads_of(shape, pitch, strip) // (arch.processors * strip.threads)) * strip.threads
    full, rest = divmod(each, at_once)
    lengths = [at_once] * full + [rest] * (rest > 0)
    return sum(max(threads / 32 * instructions / 4, _LATENCY + instructions) for threads in lengths)


def choose_strip(shape: Shape, pitch: int, arch: Architecture) -> Strip:
    """The one with the fewest predicted cycles; of equals, with more pixels in larger blocks."""
    return min(strips(shape), key=lambda strip: strip_cycles(shape, pitch, strip, arch))


def pack_weights(weight: np.ndarray, pitch: int) -> np.ndarray:
    """(C, 1, KH, KW) int8 as (taps / 4, pitch, 4): four taps of a channel are a word."""
    taps = weight.shape[2] * weight.shape[3]
    packed = np.zeros((-(-taps // 4) * 4, pitch), np.int8)
    packed[:taps, : weight.shape[0]] = weight.reshape(weight.shape[0], taps).T
    return np.ascontiguousarray(packed.reshape(-1, 4, pitch).transpose(0, 2, 1))
