"""TIR expressions as CUDA C++: what TVM made of an operator, in a kernel of ours.

TVM has a CUDA code generator, too, but its text is for TVM's own run time: operands lie as ONNX has them, so tensors
that lie channels last would be moved before and after; intrinsics and headers are CUDA's alone, so no CPU can run the
same text to check it; and what may be contracted into FMA is left to the compiler. Expressions are a hundred lines.
Every product, sum and quotient of floats is rounded on its own, and functions come as polynomials or by name, so the
same text gives the same bits on a CPU, but for functions that are called by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tvm import tirx
from tvm.ir import Call, Expr

from qcompile.errors import QCompileError
from qcompile.targets.cuda.storage import NARROW, TYPES, Storage
from qcompile.targets.cuda.text import literal

Load = Callable[[Any, list[str], "Scope"], str]  # (buffer, indices) -> an expression

_SIMPLE = re.compile(r"-?\w+|\(\w+ \+ \w+\)")
_INFIX = {
    tirx.LT: "<",
    tirx.LE: "<=",
    tirx.GT: ">",
    tirx.GE: ">=",
    tirx.EQ: "==",
    tirx.NE: "!=",
    tirx.Add: "+",
    tirx.Sub: "-",
    tirx.Mul: "*",
    tirx.Div: "/",
    tirx.Mod: "%",
    tirx.LShift: "<<",
    tirx.RShift: ">>",
    tirx.BitwiseAnd: "&",
    tirx.BitwiseOr: "|",
    tirx.BitwiseXor: "^",
}
_FLOAT = {tirx.Add: "sum({0}, {1})", tirx.Sub: "sum({0}, -({1}))", tirx.Mul: "product({0}, {1})"}
_FLOAT |= {tirx.Div: "quotient({0}, {1})"}
_CHOICES = {tirx.Max: "larger", tirx.Min: "smaller", tirx.FloorDiv: "floor_quotient", tirx.FloorMod: "floor_remainder"}
# Of float32 an "f" follows. What is not here has no kernel.
_FUNCTIONS = {
    **{name: name for name in ("exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "sqrt", "pow", "erf", "tanh")},
    **{name: name for name in ("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "asinh", "acosh")},
    **{name: name for name in ("atanh", "floor", "ceil", "trunc", "fmod", "hypot", "copysign")},
    "round": "rint",  # TVM's own, too, rounds ties to even
    "nearbyint": "rint",
    "fabs": "fabs",
}


@dataclass(slots=True)
class Scope:
    """Statements of a block of C++, and the values that have got a name in it.

    names: of this kernel, for new variables. outer: the block around, where what depends on none of ``varying`` goes,
    the variables of a loop.
    """

    names: count = field(default_factory=count)
    known: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)  # of the variables that it has named
    lines: list[str] = field(default_factory=list)
    outer: Scope | None = None
    varying: frozenset[str] = frozenset()

    def inner(self) -> Scope:
        """A block inside of this one: it sees what is known here."""
        return Scope(self.names, dict(self.known), dict(self.values), [], self.outer, self.varying)

    def loop(self, varying: Iterable[str]) -> Scope:
        """The body of a loop over these variables."""
        return Scope(self.names, {}, {}, [], self, frozenset(varying))

    def settled(self, type: str, value: str) -> str:
        """A variable of this value outside of the loop, if it is the same in every turn."""
        found = set(re.findall(r"\b[a-z]\w*\b", value))
        own = {name for name in self.values if self.outer is None or name not in self.outer.values}
        return value if self.outer is None or found & (self.varying | own) else self.outer.name(type, value)

    def name(self, type: str, value: str, key: str = "") -> str:
        """A variable of this value. key: what else has the same value."""
        if _SIMPLE.fullmatch(value):
            return value
        if (key or value) not in self.known:
            name = f"t{next(self.names)}"
            self.lines.append(f"const {type} {name} = {value};")
            self.known[key or value], self.values[name] = name, value
        return self.known[key or value]

    def written_out(self, value: str) -> str:
        """An expression without the variables that it names."""
        known = {**(self.outer.values if self.outer else {}), **self.values}
        return re.sub(r"\bt\d+\b", lambda found: self.written_out(known[found[0]]), value)

    def flushed(self) -> str:
        """The statements since the last time."""
        lines, self.lines = self.lines, []
        return " ".join(lines)

    def block(self, indent: str = "  ") -> str:
        return "".join(f"\n{indent}{line}" for line in self.lines)


def value_type(dtype: str) -> str:
    """The C++ type of a value of this element type: narrow floats are computed with as float32, and rounded."""
    return "float" if dtype in NARROW else TYPES[dtype]


def stored(value: str, storage: Storage) -> str:
    """A value as it lies in memory."""
    return f"to_{NARROW[storage.dtype]}({value})" if storage.dtype in NARROW else value


def loaded(element: str, storage: Storage) -> str:
    return f"from_{NARROW[storage.dtype]}({element})" if storage.dtype in NARROW else element


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes expressions. load: how an element of a buffer is read."""

    load: Load

    def write(self, expr: Expr, names: Mapping[Any, str], scope: Scope) -> str:
        """An expression in C++, in parentheses if need be, whose parts may be statements of ``scope``.

        names: of TIR variables. Raises ``QCompileError`` for what there is no C++ for.
        """
        value, dtype = self._write(expr, names, scope), str(expr.ty.dtype)
        exact = isinstance(expr, (tirx.Var, tirx.Let, tirx.Select)) or type(expr).__name__ == "TensorLoad"
        value = value if dtype not in NARROW or exact else f"from_{NARROW[dtype]}(to_{NARROW[dtype]}({value}))"
        costs = isinstance(expr, (Call, tirx.Div)) and "[" not in value  # what is read may be there in the loop alone
        return scope.settled(value_type(dtype), value) if costs else value

    def _write(self, expr: Expr, names: Mapping[Any, str], scope: Scope) -> str:
        if isinstance(expr, tirx.IntImm):
            return _integer(int(expr.value), str(expr.ty.dtype))
        if isinstance(expr, tirx.FloatImm):
            return literal(expr.value) if _is_float(str(expr.ty.dtype)) else f"({float(expr.value)!r})"
        if isinstance(expr, tirx.Var):
            return names[expr]
        if type(expr).__name__ == "TensorLoad":
            return self.load(expr.source, [self.write(i, names, scope) for i in expr.indices], scope)
        if isinstance(expr, tirx.Let):
            value, type_ = self.write(expr.value, names, scope), value_type(str(expr.value.ty.dtype))
            return self.write(expr.body, {**names, expr.var: scope.name(type_, value)}, scope)
        if isinstance(expr, tirx.Cast):
            return self._cast(expr, names, scope)
        if isinstance(expr, (tirx.And, tirx.Or)):
            a, b = self.write(expr.a, names, scope), self._later(expr.b, names, scope)
            return f"({a} {'&&' if isinstance(expr, tirx.And) else '||'} {b})"
        if isinstance(expr, tirx.Not):
            return f"(!{self.write(expr.a, names, scope)})"
        if isinstance(expr, tirx.BitwiseNot):
            return f"(~{self.write(expr.a, names, scope)})"
        if isinstance(expr, tirx.Select):
            parts = (expr.condition, expr.true_value, expr.false_value)
            condition, yes, no = (self.write(part, names, scope) for part in parts)
            return f"({condition} ? {yes} : {no})"
        if isinstance(expr, Call):
            return self._call(expr, names, scope)
        if type(expr) in _INFIX or type(expr) in _CHOICES:
            return self._binary(expr, names, scope)
        raise _unknown(type(expr).__name__)

    def _binary(self, expr: Any, names: Mapping[Any, str], scope: Scope) -> str:
        a, b = self.write(expr.a, names, scope), self.write(expr.b, names, scope)
        kind, type_ = type(expr), str(expr.a.ty.dtype)
        if kind in (tirx.FloorDiv, tirx.FloorMod) and _divides_index(expr, a):
            return f"({a} {'/' if kind is tirx.FloorDiv else '%'} {b})"
        if kind in _CHOICES:
            return f"{_CHOICES[kind]}<{value_type(type_)}>({a}, {b})"
        if _is_float(type_) and kind in _FLOAT:
            return _FLOAT[kind].format(a, b)
        return f"({a} {_INFIX[kind]} {b})"

    def _cast(self, expr: tirx.Cast, names: Mapping[Any, str], scope: Scope) -> str:
        value, source, target = self.write(expr.value, names, scope), str(expr.value.ty.dtype), str(expr.ty.dtype)
        if source == target or (_is_float(source) and target in NARROW):
            return value
        if target == "bool":
            return f"({value} != 0)"
        return f"static_cast<{value_type(target)}>({value})"

    def _call(self, call: Call, names: Mapping[Any, str], scope: Scope) -> str:
        op = getattr(call.op, "name", str(call.op)).rpartition(".")[2]
        if op == "if_then_else":
            condition = self.write(call.args[0], names, scope)
            yes, no = (self._later(arg, names, scope) for arg in call.args[1:])
            return f"({condition} ? {yes} : {no})"
        if op == "call_pure_extern":
            name, *values = call.args
            return f"{name.value}({', '.join(self.write(v, names, scope) for v in values)})"
        args, dtype = [self.write(arg, names, scope) for arg in call.args], str(call.args[0].ty.dtype)
        if op == "likely":
            return args[0]
        if op == "reinterpret" and {dtype, str(call.ty.dtype)} == {"float32", "int32"}:
            return f"{'with_bits' if dtype == 'int32' else 'bits_of'}({args[0]})"
        if op in ("isnan", "isinf", "isfinite"):
            value = scope.name(value_type(dtype), args[0])
            finite = f"({value} - {value} == 0)"
            return {"isnan": f"({value} != {value})", "isinf": f"(!{finite} && {value} == {value})"}.get(op, finite)
        if op == "rsqrt" and _is_float(dtype):
            return f"quotient(1.0f, sqrtf({args[0]}))"
        if op == "sigmoid" and _is_float(dtype):
            return f"quotient(1.0f, sum(1.0f, expf(-({args[0]}))))"
        if op in ("abs", "fabs") and "int" in dtype:
            value = scope.name(value_type(dtype), args[0])
            return f"({value} < 0 ? -{value} : {value})"
        op = "fabs" if op == "abs" else op
        if op in _FUNCTIONS and (_is_float(dtype) or dtype == "float64"):
            return f"{_FUNCTIONS[op]}{'f' if _is_float(dtype) else ''}({', '.join(args)})"
        raise _unknown(f"{op} of {dtype}")

    def _later(self, expr: Expr, names: Mapping[Any, str], scope: Scope) -> str:
        """An expression that is evaluated under a condition alone: it may read what is not there otherwise."""
        inner = scope.inner()
        value = self.write(expr, names, inner)
        return f"[&] {{ {' '.join(inner.lines)} return {value}; }}()" if inner.lines else value


def mentions(text: str, name: str) -> bool:
    """Whether a text in C++ has a variable."""
    return re.search(rf"\b{name}\b", text) is not None


def _is_float(dtype: str) -> bool:
    """Whether values of the type are computed with in float32."""
    return dtype == "float32" or dtype in NARROW


def _integer(value: int, dtype: str) -> str:
    if dtype == "bool":
        return "true" if value else "false"
    if value == -(2**63):
        return "(-0x7FFFFFFFFFFFFFFFLL - 1)"
    text = str(value) if -(2**31) < value < 2**31 else f"{value}LL"
    return text if value >= 0 else f"({text})"


def _divides_index(expr: Any, value: str) -> bool:
    """Whether a quotient is of a loop's variable, which is not negative."""
    positive = isinstance(expr.b, tirx.IntImm) and int(expr.b.value) > 0
    return positive and re.fullmatch(r"[\s()+*/%\dik_]+", value) is not None


def _unknown(what: str) -> QCompileError:
    return QCompileError(f"no CUDA text for {what}", remedy="build the model for a CPU target")
