"""Poolings, means, softmax, bilinear resize: what reduces or interpolates."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from qcompile.ops import AvgPool2d, Mean, ResizeLinear, Softmax
from qcompile.reference.arithmetic import out_scale, ratio
from qcompile.reference.pooling import RESIZE_BITS
from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import (
    NAME,
    THREADS,
    Kernel,
    Operand,
    axes,
    each_element,
    finish,
    lanes_of,
    literal,
    signature,
)

_LEAST = {"uint8": "0", "int8": "-128", "float32": "-QC_INFINITY"}
Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int], tuple[int, int]]


def max_pool2d(window: Window, x: Storage, out: Storage) -> Kernel:
    """window: size, strides, padding, dilation. Padding holds no elements. Buffers x, y."""
    lanes = lanes_of(out, x)
    head = _over_window(window, x, out, lanes, x.type, _LEAST[x.dtype], "if (v > total[j]) total[j] = v;")
    return each_element([f"const {x.type}* x"], out, lanes, head, "total[j]")


def avg_pool2d(spec: AvgPool2d, x: Storage, out: Storage) -> Kernel:
    """``ops.AvgPool2d``: buffers x, [multiplier], y."""
    lanes, window = lanes_of(out, x), (spec.window, spec.strides, spec.padding, spec.dilation)
    count = str(prod(spec.window)) if spec.count_include_pad else "valid"
    if spec.x is None:
        head = _over_window(window, x, out, lanes, "float", "0", "total[j] += v;")
        value = finish(f"quotient(total[j], real(max({count}, 1)))", spec.epilogue)
        return each_element(["const float* x"], out, lanes, head, value)
    head = _over_window(window, x, out, lanes, "int", "0", "total[j] += v;")
    value = finish(f"product(real(total[j] - valid * {spec.x.zero_point}), multiplier[{count}])", spec.epilogue)
    return each_element([f"const {x.type}* x", "const float* multiplier"], out, lanes, head, value)


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
        const {type} v = {element};
        {combine}
      }}
    }}"""


def mean(spec: Mean, x: Storage, out: Storage) -> Kernel:
    """``ops.Mean``: buffers x, y."""
    reduced = {a % len(x.shape) for a in spec.axes}
    kept = iter(axes(out))
    index = []
    for a in range(len(x.shape)):
        if a in reduced:
            index.append(f"a{a}")
            if spec.keepdims:
                next(kept)
        else:
            index.append(next(kept))
    loops = "\n  ".join(f"for (int a{a} = 0; a{a} < {x.shape[a]}; ++a{a})" for a in sorted(reduced))
    count = prod(x.shape[a] for a in reduced)
    type = "float" if spec.x is None else "int"
    if spec.x is None:
        value = finish(f"quotient(total, {literal(count)})", spec.epilogue)
    else:
        factor = literal(ratio(spec.x.scale, count * out_scale(spec.epilogue)))
        value = finish(f"product(real(total - {count * spec.x.zero_point}), {factor})", spec.epilogue)
    head = f"{type} total = 0;\n  {loops} total += x[{x.at(index)}];"
    if out.pitch > out.channels:
        head = f"{type} total = 0;\n  if (i{out.axis} < {out.channels})\n  {loops} total += x[{x.at(index)}];"
    return each_element([f"const {x.type}* x"], out, 1, head, value)


def softmax(spec: Softmax, x: Storage, out: Storage) -> Kernel:
    """``ops.Softmax``: buffers x, exp_table, y."""
    inverse = literal(ratio(1.0, out_scale(spec.epilogue)))
    value = finish(f"product(real(e), quotient({inverse}, real(total)))", spec.epilogue)
    return _softmax(spec.axis, x, out, "int", _LEAST[x.dtype], "exp_table[most - v]", value, ["const int* exp_table"])


def _softmax(
    axis: int, x: Storage, out: Storage, type: str, least: str, exponential: str, value: str, more: Sequence[str]
) -> Kernel:
    """A block of threads for each row: the largest element, then the sum, each in a tree in shared memory."""
    axis %= len(x.shape)
    extent, rows = x.shape[axis], prod(x.shape) // max(x.shape[axis], 1)
    index: list[str] = []
    declared, inner = [], 1
    for a in reversed(range(len(x.shape))):
        if a == axis:
            index.insert(0, "k")
            continue
        declared.append(f"const int i{a} = blockIdx.x / {inner} % {x.shape[a]};")
        index.insert(0, f"i{a}")
        inner *= x.shape[a]
    threads = next(t for t in (32, 64, 128, THREADS) if t >= min(extent, THREADS))
    each = f"for (int k = threadIdx.x; k < {extent}; k += {threads})"
    tree = (
        f"for (int half = {threads // 2}; half; half /= 2) {{ barrier(); if (threadIdx.x < half) parts[threadIdx.x] = "
    )
    parameters = signature([f"const {x.type}* x", *more, f"{out.type}* y"])
    text = f"""QC_KERNEL({threads}) {NAME}({parameters}) {{
  QC_SHARED(memory);
  {type}* const parts = reinterpret_cast<{type}*>(memory);
  {" ".join(declared)}
  {type} part = {least};
  {each} part = max(part, {type}(x[{x.at(index)}]));
  parts[threadIdx.x] = part;
  {tree}max(parts[threadIdx.x], parts[threadIdx.x + half]); }}
  barrier();
  const {type} most = parts[0];
  barrier();
  part = 0;
  {each} {{ const {type} v = x[{x.at(index)}]; part += {exponential}; }}
  parts[threadIdx.x] = part;
  {tree}parts[threadIdx.x] + parts[threadIdx.x + half]; }}
  barrier();
  const {type} total = parts[0];
  {each} {{
    const {type} v = x[{x.at(index)}], e = {exponential};
    y[{out.at(index)}] = {value};
  }}
}}
"""
    return Kernel(text, rows, threads, 4 * threads)


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
