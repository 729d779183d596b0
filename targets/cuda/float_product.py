"""Convolutions and matrix products of floats without Tensor Cores: a thread for each result.

For what precision leaves in float32, and for narrow floats in groups that begin between words, depthwise ones among
them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcompile.ops import Conv2d, Dense
from qcompile.targets.cuda.architectures import Architecture
from qcompile.targets.cuda.contract import SM_80, Shape
from qcompile.targets.cuda.launch_time import cycles_of
from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import Kernel, axes, each_element, finish


def float_product(
    spec: Conv2d | Dense,
    shape: Shape,
    weight: np.ndarray,
    x: Storage,
    out: Storage,
    residual: Storage | None,
    arch: Architecture = SM_80,
) -> tuple[Kernel, np.ndarray]:
    """The kernel and its weights: buffers x, weights, bias, residual (if there is one), y.

    weight: (O, I / groups, KH, KW). Neighbouring threads make neighbouring channels, so weights lie (KH, KW, I, O).
    """
    outputs, inputs, kh, kw = weight.shape
    groups = spec.groups if isinstance(spec, Conv2d) else 1
    (sh, sw), (dh, dw), (top, left) = shape.strides, shape.dilation, shape.padding[:2]
    # What pads the channels is computed like the last of them.
    channel = f"min(i % {out.pitch}, {outputs - 1})" if out.pitch > outputs else f"i % {out.pitch}"
    head = f"""const int pixel = i / {out.pitch}, o = {channel};
  const int image = pixel / {shape.out_height * shape.out_width}, oh = pixel / {shape.out_width} % {shape.out_height};
  const int ow = pixel % {shape.out_width}, first = o / {outputs // groups} * {inputs};
  float total = 0.0f;
  for (int a = 0; a < {kh}; ++a)
    for (int b = 0; b < {kw}; ++b) {{
      const int h = oh * {sh} - {top} + a * {dh}, v = ow * {sw} - {left} + b * {dw};
      if (h < 0 || h >= {shape.height} || v < 0 || v >= {shape.width}) continue;
      const {x.type}* const from = x + ((image * {shape.height} + h) * {shape.width} + v) * {x.pitch} + first;
      const float* const weights = w + (a * {kw} + b) * {inputs * outputs} + o;
      for (int c = 0; c < {inputs}; ++c) total = fmaf({x.real("from[c]")}, weights[c * {outputs}], total);
    }}"""
    other = residual.real(f"r[{residual.at(axes(out))}]") if residual else ""
    added = [f"const {residual.type}* r"] if residual else []
    parameters = [f"const {x.type}* x", "const float* w", "const float* bias", *added]
    value = out.stored(finish("total + bias[o]", spec.epilogue, other))
    kernel = each_element(parameters, out, 1, head, value)
    kernel = replace(kernel, cycles=cycles_of(shape.pixels * outputs, inputs * kh * kw, arch))
    return kernel, np.ascontiguousarray(weight.transpose(2, 3, 1, 0), np.float32)
