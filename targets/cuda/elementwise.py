"""Element by element: requantize, tables, rows of tables, sums and products of two tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Affine, Binary, Epilogue, Gather, Lookup, Requantize
from qcompile.reference.arithmetic import out_scale, ratio
from qcompile.targets.cuda.storage import TYPES, Storage
from qcompile.targets.cuda.text import Kernel, Operand, axes, each_element, finish, lanes_of, literal, steps, to_code

_FLOAT_BINARY = {
    "add": "sum({0}, {1})",
    "subtract": "sum({0}, -({1}))",
    "multiply": "product({0}, {1})",
}


def one(value: str, x: Storage, out: Storage, *more: str) -> Kernel:
    """``value`` of each element of x, which it calls v. more: declarations of parameters between x and the result."""
    lanes, operand = lanes_of(out), Operand("x", x)
    head, element = operand.read(out, lanes)
    return each_element([operand.parameter, *more], out, lanes, head, value.replace("{v}", element))


def requantize(spec: Requantize, x: Storage, out: Storage) -> Kernel:
    return one(requantized("{v}", spec.x, spec.out), x, out)


def requantized(code: str, x: Affine, out: Affine) -> str:
    """The expression of ``ops.Requantize``."""
    return code if x == out else to_code(f"product({steps(code, x)}, {literal(ratio(x.scale, out.scale))})", out)


def lookup(spec: Lookup, x: Storage, out: Storage) -> Kernel:
    """Buffers x, table, y."""
    at = "{v}" if spec.x.dtype == "uint8" else "{v} + 128"
    return one(f"table[{at}]", x, out, f"const {out.type}* table")


def binary(spec: Binary, a: Storage, b: Storage, out: Storage) -> Kernel:
    """``ops.Binary``: buffers a, b, y; of the same rank as y, extents of 1 are broadcast."""
    return _two(_combined(spec), a, b, out)


def _two(value: str, a: Storage, b: Storage, out: Storage) -> Kernel:
    lanes = lanes_of(out)
    first, second = Operand("a", a), Operand("b", b)
    (head_a, element_a), (head_b, element_b) = first.read(out, lanes), second.read(out, lanes)
    value = value.replace("{a}", element_a).replace("{b}", element_b)
    return each_element([first.parameter, second.parameter], out, lanes, f"{head_a}\n  {head_b}", value)


def _combined(spec: Binary) -> str:
    a, b, scale = spec.a, spec.b, out_scale(spec.epilogue)
    if a is None or b is None:
        return finish(_FLOAT_BINARY[spec.kind].format("{a}", "{b}"), spec.epilogue)
    if spec.kind == "multiply":
        codes = f"real(({{a}} - {a.zero_point}) * ({{b}} - {b.zero_point}))"
        return finish(f"product({codes}, {literal(ratio(a.scale * b.scale, scale))})", spec.epilogue)
    first, second = (
        f"product({steps(name, q)}, {literal(ratio(q.scale, scale))})" for name, q in (("{a}", a), ("{b}", b))
    )
    sign = "-" if spec.kind == "subtract" else ""
    return finish(f"sum({first}, {sign}{second})", spec.epilogue)


def clip(bounds: tuple[float, float], x: Storage, out: Storage) -> Kernel:
    """Of codes between codes: buffers x, y."""
    kind = Affine(1.0, 0, x.dtype)
    low, high = (int(min(max(bound, kind.qmin), kind.qmax)) for bound in bounds)
    return one(f"min(max(int({{v}}), {low}), {high})", x, out)


def gather(spec: Gather, indices: Storage, out: Storage, constants: Sequence[np.ndarray]) -> Kernel:
    """``ops.Gather``: buffers indices, then its constants, y. constants: as the kernel gets them."""
    table, _, *rest = constants
    adds = len(rest) > bool(spec.group)
    names = ["table", "scale", *["groups"] * bool(spec.group), *["added", "added_scale"][: 2 * adds]]
    parameters = [f"const {indices.type}* indices"]
    parameters += [f"const {TYPES[str(c.dtype)]}* {name}" for name, c in zip(names, constants, strict=True)]
    width, axis, lanes = table.shape[1], out.axis, lanes_of(out)
    head = f"""const int row = ({out.at([*axes(out)[:-1], "0"])}) / {out.pitch};
  const int at = static_cast<int>(floor_remainder<{indices.type}>(indices[row], {table.shape[0]}));"""
    code = f"table[at * {width} + i{axis} + j]"
    if spec.group:
        code = f"{code} * groups[at * {width // spec.group} + (i{axis} + j) / {spec.group}]"
    value = f"product({_real(code, table)}, scale[at])"
    if adds:
        count = rest[-1].size
        added = _real(f"added[row % {count} * {width} + i{axis} + j]", rest[-2])
        value = f"sum({value}, product({added}, added_scale[row % {count}]))"
    return each_element(parameters, out, lanes, head, value)


def _real(code: str, of: np.ndarray) -> str:
    return code if of.dtype == np.float32 else f"real({code})"


def widened(constant: np.ndarray) -> np.ndarray:
    """float16 as float32: the same numbers, in what every architecture computes with."""
    return np.ascontiguousarray(constant.astype(np.float32) if constant.dtype == np.float16 else constant)


def epilogue_function(epilogue: Epilogue, out: Storage, residual: Storage | None) -> str:
    """The member ``finish`` of what a kernel template is instantiated with."""
    element = residual.type if residual else "u8"
    value = out.stored(finish("v", epilogue, residual.real("r") if residual else "r"))
    return f"QC_DEVICE_MEMBER static {out.type} finish(float v, {element} r) {{ (void)r; return {value}; }}"
