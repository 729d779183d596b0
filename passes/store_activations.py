"""Stores codes of activations as the target's dot products read them: unsigned by signed ones as uint8, else as int8.

For a target of uint8 (one of int8 is the mirror image)::

    q = quantize(x, s, z)          int8          q = quantize(x, s, z + 128)     uint8
    y = conv2d_0(q, w, b, m)       int8   ->     y = conv2d_0(q, w, b, m)        uint8, zero points of its spec + 128
    p = nn.max_pool2d(y)           int8          p = nn.max_pool2d(y)            uint8
    r = dequantize(p, t, u)                      r = dequantize(p, t, u + 128)

Every int8 code c is stored as c + 128 (every uint8 code as c - 128), so all differences of a code and its zero point,
and with them all results, are the same to the bit. Model inputs and outputs keep their type: an input is shifted for
its readers (``Requantize`` of equal scales, which is one XOR), and the layer that makes an output that nobody else
reads goes on writing its type. An operator that computes with such numbers (what is left of ConvInteger) reads them
unshifted.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst, IRModule

from qcompile import graph, ops
from qcompile.graph import MainBuilder
from qcompile.ops import Affine
from qcompile.passes.assign_storage import called_spec
from qcompile.passes.base import array, dtype_of, module_pass, number, op_name, with_args
from qcompile.passes.composite import Composite
from qcompile.passes.movement import MOVERS
from qcompile.passes.quantized import affine_of, dequantize, quantize
from qcompile.reference.movement import is_nearest_resize
from qcompile.targets.target import Target

SHIFT = 128
_NUMBERS = {"int8": Affine(1.0, 0, "int8"), "uint8": Affine(1.0, SHIFT, "uint8")}  # the same numbers as either type
_OTHER = {"int8": "uint8", "uint8": "int8"}

_MOVERS = {*MOVERS, "take", "split"}

_Spec = TypeVar("_Spec")
Emit = Callable[[relax.Expr, str], relax.Var]


def StoreActivations(target: Target) -> tvm.ir.transform.Pass:  # noqa: N802 (named like TVM's own passes)
    """See the module's docstring."""
    return module_pass("StoreActivations", lambda module: _Main(module, target.activation).run(), __doc__)


def stored_as(q: Affine, dtype: str) -> Affine:
    """The same numbers in codes of ``dtype``."""
    return q if q.dtype == dtype else Affine(q.scale, q.zero_point + _shift_to(dtype), dtype)


def _shift_to(dtype: str) -> int:
    return _NUMBERS[dtype].zero_point - _NUMBERS[_OTHER[dtype]].zero_point


def stored_spec(spec: _Spec, dtype: str, keeps_out: bool = False) -> _Spec:
    """A spec (or epilogue) on codes stored as ``dtype``; ``keeps_out``: but for its result."""
    changes: dict[str, Any] = {
        f.name: _stored_field(f.name, getattr(spec, f.name), dtype, keeps_out)
        for f in fields(spec)  # type: ignore[arg-type]
    }
    return replace(spec, **changes)  # type: ignore[type-var]


def _stored_field(name: str, value: object, dtype: str, keeps_out: bool) -> object:
    if isinstance(value, Affine):
        return value if name == "out" and keeps_out else stored_as(value, dtype)
    if isinstance(value, ops.Epilogue):
        return stored_spec(value, dtype, keeps_out)
    if isinstance(value, tuple):
        return tuple(stored_as(v, dtype) if isinstance(v, Affine) else v for v in value)
    return value


@dataclass(slots=True)
class _Codes:
    """The bindings of ``main``, or of a composite's body, written anew.

    dtype: what codes are stored as. kept: old variables that stay as they are. emit: binds a value to a new variable.
    shift: codes of one type as the other. same, stored: old variable -> the new one that holds it as it was, and as
    ``dtype``; one of them or both.
    """

    dtype: str
    kept: Set[relax.Var]
    emit: Emit
    shift: Callable[[relax.Expr, str, Affine, Affine], relax.Var]
    same: dict[relax.Var, relax.Expr] = field(default_factory=dict)
    stored: dict[relax.Var, relax.Expr] = field(default_factory=dict)

    def as_it_was(self, expr: relax.Expr) -> relax.Expr:
        """An old variable in its old type."""
        if isinstance(expr, relax.Var) and expr not in self.same:
            self.same[expr] = self._shifted(self.stored[expr], expr.name, self.dtype)
        return self.same[expr] if isinstance(expr, relax.Var) else expr

    def as_stored(self, expr: relax.Expr) -> relax.Expr:
        """An old variable or constant of codes of the other type as ``dtype``."""
        if isinstance(expr, GenericConst):
            return relax.const((array(expr).view(np.uint8) ^ np.uint8(SHIFT)).view(self.dtype))
        if expr not in self.stored:
            self.stored[expr] = self._shifted(self.same[expr], expr.name, _OTHER[self.dtype])
        return self.stored[expr]

    def _shifted(self, codes: relax.Expr, name: str, dtype: str) -> relax.Var:
        """Codes of ``dtype`` as those of the other type."""
        other = _OTHER[dtype]
        return self.shift(codes, f"{name}~{other}", _NUMBERS[dtype], _NUMBERS[other])

    def bind(self, var: relax.Var, value: relax.Expr) -> None:
        """Writes one old binding."""
        new = self._on_stored(var, value)
        if new is not None:
            self.stored[var] = self.emit(new, var.name)
            return
        if op_name(value) == "dequantize" and value.args[0] in self.stored and (q := affine_of(value)) is not None:
            value = dequantize(self.stored[value.args[0]], stored_as(q, self.dtype))
        else:
            value = graph.substitute(value, {read: self.as_it_was(read) for read in graph.reads(value)})
        self.same[var] = self.emit(value, var.name)

    def _on_stored(self, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        """``value`` as ``dtype`` where it is codes whose type this pass may choose, else None."""
        if isinstance(value, relax.TupleGetItem):
            source = self.stored.get(value.tuple_value)
            return None if source is None else relax.TupleGetItem(source, value.index)
        kind = op_name(value)
        if kind == "quantize":
            q = affine_of(value)
            stays = q is None or q.dtype == self.dtype or var in self.kept
            return None if stays else quantize(self.as_it_was(value.args[0]), stored_as(q, self.dtype))
        if kind == "concat" and isinstance(value.args[0], relax.Tuple):
            parts = list(value.args[0].fields)
            if not any(part in self.stored for part in parts):
                return None
            return with_args(value, relax.Tuple([self.as_stored(part) for part in parts]))
        if not isinstance(value, relax.Call) or not value.args or value.args[0] not in self.stored:
            return None
        return self._moved(value, self.stored[value.args[0]])

    def _moved(self, value: relax.Call, x: relax.Expr) -> relax.Expr | None:
        """An operator that means the same on codes of either type, on the codes ``x`` of ``dtype``."""
        kind, shift, old = op_name(value), _shift_to(self.dtype), _NUMBERS[_OTHER[self.dtype]]
        if kind in ("clip", "nn.relu"):
            low, high = (number(arg) for arg in value.args[1:]) if kind == "clip" else (0, old.qmax)
            return relax.op.clip(x, *(float(np.clip(bound, old.qmin, old.qmax)) + shift for bound in (low, high)))
        if kind == "nn.pad" and str(value.attrs.pad_mode) == "constant":
            return relax.op.nn.pad(x, list(value.attrs.pad_width), "constant", float(value.attrs.pad_value) + shift)
        if kind in _MOVERS or kind == "nn.pad" or (kind == "image.resize2d" and is_nearest_resize(value)):
            return with_args(value, x, *(self.as_it_was(arg) for arg in value.args[1:]))
        return None


class _Main:
    """One run of the pass."""

    def __init__(self, module: IRModule, dtype: str):
        self.module, self.main = module, graph.read(module)
        users = self.main.users()
        self.builder = MainBuilder(self.main.params, module)
        kept = {var for var, _ in self.main.bindings if not users[var]}
        self.codes = _Codes(dtype, kept, self.builder.emit, self._shift, same={p: p for p in self.main.params})

    def run(self) -> IRModule:
        for var, value in self.main.bindings:
            spec = called_spec(self.module, value)
            if spec is None or not self._composite(var, value, spec):
                self.codes.bind(var, value)
        return self.builder.module([self.codes.as_it_was(out) for out in self.main.outputs])

    def _composite(self, var: relax.Var, call: relax.Call, spec: ops.Spec) -> bool:
        """Writes a call of a composite on codes of the other type; False if it has none."""
        codes, keeps_out, other = self.codes, var in self.codes.kept, _OTHER[self.codes.dtype]
        where = {i for i in code_arguments(spec, len(call.args)) if dtype_of(call.args[i]) == other}
        result_changes = dtype_of(var) == other and not keeps_out
        if isinstance(spec, ops.ChannelShuffle):  # what it moves says of which type the result is
            where = {0} if call.args[0] in codes.stored else set()
            result_changes = bool(where)
        if not where and not result_changes:
            return False
        if isinstance(spec, ops.Lookup) and result_changes:
            where.add(1)  # the table
        args = [codes.as_stored(a) if i in where else codes.as_it_was(a) for i, a in enumerate(call.args)]
        old = self.module[call.op]
        function = _rewritten(old, args, where, codes.dtype, stored_spec(spec, codes.dtype, keeps_out), result_changes)
        new = self.builder.call(function, args, var.name, spec.op)
        (codes.stored if result_changes else codes.same)[var] = new
        return True

    def _shift(self, x: relax.Expr, name: str, before: Affine, after: Affine) -> relax.Var:
        composite = Composite([x])
        result = composite.emit(quantize(composite.real(0, before), after))
        function = composite.function(result, ops.Requantize(before, after), name)
        return self.builder.call(function, [x], name, ops.Requantize.op)


def code_arguments(spec: ops.Spec, count: int) -> set[int]:
    """Which of the ``count`` arguments of a composite are activations, in codes or float32."""
    if isinstance(spec, ops.Gather):
        return set()
    if isinstance(spec, ops.Concat):
        return set(range(count))
    if isinstance(spec, ops.Binary):
        return {0, 1}
    epilogue = getattr(spec, "epilogue", None)
    return {0, count - 1} if epilogue is not None and epilogue.residual is not None else {0}


def _rewritten(
    old: relax.Function, args: list[relax.Expr], where: Set[int], dtype: str, spec: ops.Spec, result_changes: bool
) -> relax.Function:
    """The composite on new arguments, of which those at ``where`` are of ``dtype`` now."""
    composite = Composite(args)

    def shift(x: relax.Expr, name: str, before: Affine, after: Affine) -> relax.Var:
        return composite.emit(quantize(composite.emit(dequantize(x, before)), after))

    result = old.body.body
    pairs = list(zip(old.params, composite.params, strict=True))
    codes = _Codes(
        dtype,
        set() if result_changes else {result},
        lambda value, name: composite.emit(value),
        shift,
        same={p: new for i, (p, new) in enumerate(pairs) if i not in where},
        stored={p: new for i, (p, new) in enumerate(pairs) if i in where},
    )
    for block in old.body.blocks:
        for binding in block.bindings:
            codes.bind(binding.var, binding.value)
    new = codes.as_stored(result) if result_changes else codes.as_it_was(result)
    return composite.function(new, spec, ops.layer_of(old))
