"""Depthwise convolutions of codes: ``device/depthwise.cuh`` with the shapes of a layer."""

from __future__ import annotations

import numpy as np

from qcompile.ops import Conv2d
from qcompile.targets.cuda.contract import Shape, constants_text, has_small_sums, instantiated, padded, shifted_bias
from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import THREADS, Kernel

_STRIPS = (4, 2, 1)  # pixels a thread, whose weights it then loads once
_ENOUGH = 64 << 10  # threads, for strips to pay


def depthwise(
    spec: Conv2d,
    shape: Shape,
    weight: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    x: Storage,
    out: Storage,
    residual: Storage | None,
) -> tuple[Kernel, tuple[np.ndarray, ...]]:
    """The kernel and its constants: buffers x, constants, residual (if there is one), y. weight: (C, 1, KH, KW)."""

    def threads(strip: int) -> int:
        return shape.images * shape.out_height * -(-shape.out_width // strip) * (x.pitch // 4)

    strip = next(s for s in _STRIPS if s == 1 or threads(s) >= _ENOUGH)
    constants = {
        **shape.constants(),
        **{"C": x.pitch, "O": out.channels, "OC": out.pitch, "RC": residual.pitch if residual else 0},
        **{"ZERO": spec.x.zero_point, "STRIP": strip, "THREADS": THREADS},
    }
    small = has_small_sums(bias, weight, spec.x)
    flags = {"SIGNED": spec.x.dtype == "int8", "RESIDUAL": residual is not None, "SMALL": small}
    parameters = ["const u32* w", "const int* bias", "const float* multiplier"]
    members, launch = constants_text(constants, flags), f"QC_KERNEL({THREADS})"
    text = instantiated("depthwise", parameters, members, spec.epilogue, x, out, residual, launch)
    arrays = (
        pack_weights(weight, x.pitch),
        padded(shifted_bias(bias, weight, spec.x), x.pitch),
        padded(multiplier.astype(np.float32), x.pitch),
    )
    return Kernel(text, -(-threads(strip) // THREADS), THREADS, note=f"dp4a {strip} pixels"), arrays


def pack_weights(weight: np.ndarray, pitch: int) -> np.ndarray:
    """(C, 1, KH, KW) int8 as (taps / 4, pitch, 4): four taps of a channel are a word."""
    taps = weight.shape[2] * weight.shape[3]
    packed = np.zeros((-(-taps // 4) * 4, pitch), np.int8)
    packed[:taps, : weight.shape[0]] = weight.reshape(weight.shape[0], taps).T
    return np.ascontiguousarray(packed.reshape(-1, 4, pitch).transpose(0, 2, 1))
