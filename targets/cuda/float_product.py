"""Convolutions and matrix products of floats without Tensor Cores: a thread for each result.

For groups that begin between words, depthwise ones among them, for float32 beside weights in fewer bits, and for all
float32 on Turing, whose Tensor Cores have no TF32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from qcompile.ops import Conv2d, Dense
from qcompile.reference.narrow import to_bits
from qcompile.targets.cuda.architectures import Architecture
from qcompile.targets.cuda.contract import SM_80, Shape
from qcompile.targets.cuda.launch_time import cycles_of
from qcompile.targets.cuda.storage import NARROW, Storage, plain
from qcompile.targets.cuda.text import Kernel, axes, each_element, finish


@dataclass(frozen=True, slots=True)
class _Stored:
    """How weights (KH, KW, I, O) lie, and what weight (k, o) is as a float, in CUDA C++; k counts (KH, KW, I)."""

    type: str
    pack: Callable[[np.ndarray], np.ndarray]
    real: str  # {at}: k * O + o


def _stored(dtype: str) -> _Stored:
    if dtype in NARROW:
        bits = plain((1,), dtype)
        return _Stored(bits.type, lambda w: to_bits(w, dtype), bits.real("w[{at}]"))
    return _STORED[dtype]


def _nibbles(weight: np.ndarray) -> np.ndarray:
    """Codes + 8, two neighbours a byte, the first one in its lower bits."""
    codes = (weight + 8).astype(np.uint8).reshape(-1)
    codes = np.append(codes, np.zeros(codes.size % 2, np.uint8))
    return codes[::2] | codes[1::2] << 4


_STORED = {
    "float32": _Stored("float", lambda w: w.astype(np.float32), "w[{at}]"),
    "int8": _Stored("i8", lambda w: w.astype(np.int8), "real(w[{at}])"),
    "int4": _Stored("u8", _nibbles, "real((w[({at}) / 2] >> ({at}) % 2 * 4 & 15) - 8)"),
}


def float_product(
    spec: Conv2d | Dense,
    shape: Shape,
    weight: np.ndarray,
    bias: np.ndarray,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    arch: Architecture = SM_80,
    multiplier: np.ndarray | None = None,
    group_scale: np.ndarray | None = None,
) -> tuple[Kernel, tuple[np.ndarray, ...]]:
    """The kernel and its constants: buffers x, constants, residual (if there is one), y.

    weight: (O, I / groups, KH, KW), numbers of ``spec.weights``. multiplier, group_scale: as in ``ops.Conv2d``.
    Neighbouring threads make neighbouring channels, so weights lie (KH, KW, I, O), scales of groups (groups, O).
    """
    outputs, inputs, kh, kw = weight.shape
    groups = spec.groups if isinstance(spec, Conv2d) else 1
    (sh, sw), (dh, dw), (top, left) = shape.strides, shape.dilation, shape.padding[:2]
    stored = _stored(spec.weights)
    element = stored.real.format(at=f"(k + c) * {outputs} + o")
    if group_scale is not None:
        element = f"product({element}, real(scales[(k + c) / {spec.group} * {outputs} + o]))"  # exact
    # What pads the channels is computed like the last of them.
    channel = f"min(i % {out.pitch}, {outputs - 1})" if out.pitch > outputs else f"i % {out.pitch}"
    head = f"""const int pixel = i / {out.pitch}, o = {channel};
  const int image = pixel / {shape.out_height * shape.out_width}, oh = pixel / {shape.out_width} % {shape.out_height};
  const int ow = pixel % {shape.out_width}, first = o / {outputs // groups} * {inputs};
  float total = 0.0f;
  for (int a = 0; a < {kh}; ++a)
    for (int b = 0; b < {kw}; ++b) {{
      const int h = oh * {sh} - {top} + a * {dh}, v = ow * {sw} - {left} + b * {dw}, k = (a * {kw} + b) * {inputs};
      if (h < 0 || h >= {shape.height} || v < 0 || v >= {shape.width}) continue;
      const {x.type}* const from = x + ((image * {shape.height} + h) * {shape.width} + v) * {x.pitch} + first;
      for (int c = 0; c < {inputs}; ++c) total = fmaf({x.real("from[c]")}, {element}, total);
    }}"""
    other = residual.real(f"r[{residual.at(axes(out))}]") if residual else ""
    total = "total" if multiplier is None else "product(total, multiplier[o])"
    vectors = {"bias": ("float", bias.astype(np.float32))}
    if multiplier is not None:
        vectors["multiplier"] = ("float", multiplier.astype(np.float32))
    if group_scale is not None:
        vectors["scales"] = ("u8", np.ascontiguousarray(group_scale.T))
    constants = [f"const {type}* {name}" for name, (type, _) in vectors.items()]
    added = [f"const {residual.type}* r"] if residual else []
    parameters = [f"const {x.type}* x", f"const {stored.type}* w", *constants, *added]
    value = out.stored(finish(f"sum({total}, bias[o])", spec.epilogue, other))
    kernel = each_element(parameters, out, 1, head, value)
    kernel = replace(kernel, cycles=cycles_of(shape.pixels * outputs, inputs * kh * kw, arch))
    packed = stored.pack(np.ascontiguousarray(weight.transpose(2, 3, 1, 0)))
    return kernel, (packed, *(values for _, values in vectors.values()))
