"""Poolings and bilinear resize: what reduces windows, or interpolates."""

from __future__ import annotations

from math import prod

from qcompile.ops import AvgPool2d, ResizeLinear
from qcompile.reference.arithmetic import out_scale, ratio
from qcompile.reference.pooling import RESIZE_BITS
from qcompile.targets.cuda.row_layers import window_sums
from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import Kernel, Operand, each_element, finish, lanes_of, literal

_SHARED = 32  # elements of a window from which on threads share its work
_LEAST = {"uint8": "0", "int8": "-128", "float32": "-QC_INFINITY"}
Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int], tuple[int, int]]


def max_pool2d(window: Window, x: Storage, out: Storage) -> Kernel:
    """window: size, strides, padding, dilation. Padding holds no elements. Buffers x, y."""
    lanes = lanes_of(out, x)
    type, least = ("float", _LEAST["float32"]) if x.is_narrow else (x.type, _LEAST[x.dtype])
    head = _over_window(window, x, out, lanes, type, least, "if (v > total[j]) total[j] = v;")
    return each_element([f"const {x.type}* x"], out, lanes, head, out.stored("total[j]"))


def avg_pool2d(spec: AvgPool2d, x: Storage, out: Storage) -> Kernel:
    """``ops.AvgPool2d``: buffers x, [multiplier], y."""
    if prod(spec.window) >= _SHARED and _all_inside(spec, x, out):
        return window_sums(spec, x, out)
    lanes, window = lanes_of(out, x), (spec.window, spec.strides, spec.padding, spec.dilation)
    count = str(prod(spec.window)) if spec.count_include_pad else "valid"
    if spec.x is None:
        head = _over_window(window, x, out, lanes, "float", "0", "total[j] += v;")
        value = finish(f"quotient(total[j], real(max({count}, 1)))", spec.epilogue)
        return each_element(["const float* x"], out, lanes, head, value)
    head = _over_window(window, x, out, lanes, "int", "0", "total[j] += v;")
    value = finish(f"product(real(total[j] - valid * {spec.x.zero_point}), multiplier[{count}])", spec.epilogue)
    return each_element([f"const {x.type}* x", "const float* multiplier"], out, lanes, head, value)


def _all_inside(spec: AvgPool2d, x: Storage, out: Storage) -> bool:
    """Whether no window reaches beyond the image."""
    sizes = zip(spec.window, spec.strides, spec.dilation, strict=True)
    last = [(extent - 1) * s + (k - 1) * d for extent, (k, s, d) in zip(_image(out), sizes, strict=True)]
    return not any(spec.padding) and all(a < extent for a, extent in zip(last, _image(x), strict=True))


def _image(x: Storage) -> tuple[int, int]:
    """Height and width; a sequence has one row."""
    return (x.shape[2], x.shape[3]) if len(x.shape) == 4 else (1, x.shape[2])


def _over_window(window: Window, x: Storage, out: Storage, lanes: int, type: str, start: str, combine: str) -> str:
    """Statements that leave ``total[lanes]``, and ``valid``: taps inside of the image."""
    (kh, kw), (sh, sw), (top, left, _, _), (dh, dw) = window
    images = len(x.shape) == 4
    ih, iw = ("i2", "i3") if images else ("0", "i2")
    height, width = x.shape[2:] if images else (1, x.shape[2])
    index = ["i0", "i1", "h", "w"] if images else ["i0", "i1", "w"]
    head, element = Operand("x", x).read(out, lanes, index)
    return f"""{type} total[{lanes}];
  for (int j = 0; j < {lanes}; ++j) total[j] = {start};
  int valid = 0;
  for (int a = 0; a < {kh}; ++a)
    for (int b = 0; b < {kw}; ++b) {{
      const int h = {ih} * {sh} - {top} + a * {dh}, w = {iw} * {sw} - {left} + b * {dw};
      if (h < 0 || h >= {height} || w < 0 || w >= {width}) continue;
      ++valid;
      {head}
      for (int j = 0; j < {lanes}; ++j) {{
        const {type} v = {x.real(element)};
        {combine}
      }}
    }}"""


def resize_linear(spec: ResizeLinear, x: Storage, out: Storage) -> Kernel:
    """``ops.ResizeLinear``: buffers x, index_h, weight_h, index_w, weight_w, y."""
    lanes, z = lanes_of(out, x), spec.x.zero_point
    head, element = Operand("x", x).read(out, lanes, ["i0", "i1", "index_h[2 * i2 + a]", "index_w[2 * i3 + b]"])
    head = f"""int total[{lanes}] = {{}};
  for (int a = 0; a < 2; ++a)
    for (int b = 0; b < 2; ++b) {{
      {head}
      for (int j = 0; j < {lanes}; ++j)
        total[j] += weight_h[2 * i2 + a] * weight_w[2 * i3 + b] * (int({element}) - {z});
    }}"""
    factor = literal(ratio(spec.x.scale, 4**RESIZE_BITS * out_scale(spec.epilogue)))
    value = finish(f"product(real(total[j]), {factor})", spec.epilogue)
    tables = [f"const int* {name}" for name in ("index_h", "weight_h", "index_w", "weight_w")]
    return each_element([f"const {x.type}* x", *tables], out, lanes, head, value)
