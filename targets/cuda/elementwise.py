"""Element by element: quantize, dequantize, requantize, tables, sums and products of two tensors, float functions."""

from __future__ import annotations

from qcompile.ops import Affine, Binary, Epilogue, Lookup, Requantize
from qcompile.reference.arithmetic import out_scale, ratio
from qcompile.targets.cuda.storage import Storage
from qcompile.targets.cuda.text import Kernel, Operand, clipped, each_element, finish, lanes_of, literal, steps, to_code

FLOAT_UNARY = {
    "sigmoid": "1.0f / (1.0f + expf(-{0}))",
    "tanh": "tanhf({0})",
    "exp": "expf({0})",
    "sqrt": "sqrtf({0})",
    "negative": "-{0}",
    "abs": "fabsf({0})",
    "erf": "erff({0})",
    "nn.silu": "{0} / (1.0f + expf(-{0}))",
}
FLOAT_BINARY = {
    "add": "sum({0}, {1})",
    "subtract": "sum({0}, -({1}))",
    "multiply": "product({0}, {1})",
    "divide": "quotient({0}, {1})",
    "power": "powf({0}, {1})",
    "maximum": "fmaxf({0}, {1})",
    "minimum": "fminf({0}, {1})",
}


def one(value: str, x: Storage, out: Storage, *more: str) -> Kernel:
    """``value`` of each element of x, which it calls v. more: declarations of parameters between x and the result."""
    lanes, operand = lanes_of(out), Operand("x", x)
    head, element = operand.read(out, lanes)
    return each_element([operand.parameter, *more], out, lanes, head, value.replace("{v}", element))


def quantize(q: Affine, x: Storage, out: Storage) -> Kernel:
    """float32 to codes: buffers x, y. NaN counts as 0."""
    scale = literal(q.scale)
    return one(f"to_code(number(quotient({{v}}, {scale})), {_bounds(q)})", x, out)


def _bounds(q: Affine) -> str:
    return f"{literal(q.qmin - q.zero_point)}, {literal(q.qmax - q.zero_point)}, {q.zero_point}"


def dequantize(q: Affine, x: Storage, out: Storage) -> Kernel:
    return one(f"product({steps('{v}', q)}, {literal(q.scale)})", x, out)


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


def float_binary(op: str, a: Storage, b: Storage, out: Storage) -> Kernel:
    """A row of ``FLOAT_BINARY``: buffers a, b, y."""
    return _two(FLOAT_BINARY[op].format("{a}", "{b}"), a, b, out)


def _two(value: str, a: Storage, b: Storage, out: Storage) -> Kernel:
    lanes = lanes_of(out)
    first, second = Operand("a", a), Operand("b", b)
    (head_a, element_a), (head_b, element_b) = first.read(out, lanes), second.read(out, lanes)
    value = value.replace("{a}", element_a).replace("{b}", element_b)
    return each_element([first.parameter, second.parameter], out, lanes, f"{head_a}\n  {head_b}", value)


def _combined(spec: Binary) -> str:
    a, b, scale = spec.a, spec.b, out_scale(spec.epilogue)
    if a is None or b is None:
        return finish(FLOAT_BINARY[spec.kind].format("{a}", "{b}"), spec.epilogue)
    if spec.kind == "multiply":
        codes = f"real(({{a}} - {a.zero_point}) * ({{b}} - {b.zero_point}))"
        return finish(f"product({codes}, {literal(ratio(a.scale * b.scale, scale))})", spec.epilogue)
    first, second = (
        f"product({steps(name, q)}, {literal(ratio(q.scale, scale))})" for name, q in (("{a}", a), ("{b}", b))
    )
    sign = "-" if spec.kind == "subtract" else ""
    return finish(f"sum({first}, {sign}{second})", spec.epilogue)


def clip(bounds: tuple[float, float], x: Storage, out: Storage) -> Kernel:
    """Of floats, or of codes between codes: buffers x, y."""
    if x.is_float:
        return one(clipped("{v}", bounds), x, out)
    kind = Affine(1.0, 0, x.dtype)
    low, high = (int(min(max(bound, kind.qmin), kind.qmax)) for bound in bounds)
    return one(f"min(max(int({{v}}), {low}), {high})", x, out)


def float_unary(op: str, x: Storage, out: Storage) -> Kernel:
    """A row of ``FLOAT_UNARY``: buffers x, y."""
    return one(FLOAT_UNARY[op].format("{v}"), x, out)


def epilogue_function(epilogue: Epilogue, out: Storage, residual: Storage | None) -> str:
    """The member ``finish`` of what a kernel template is instantiated with."""
    element = residual.type if residual else "u8"
    value = out.stored(finish("v", epilogue, residual.real("r") if residual else "r"))
    return f"QC_DEVICE_MEMBER static {out.type} finish(float v, {element} r) {{ (void)r; return {value}; }}"
