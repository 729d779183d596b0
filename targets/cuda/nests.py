"""What TVM makes of operators, read back: loop nests with one store each, over parallel and reduction axes.

::

    for i, k:                                       Nest(s, axes (i), reduced (k), "sum", x[i, k])
        s[i] += x[i, k]
    for i, j:                               ->
        y[i, j] = x[i, j] / s[i]                    Nest(y, axes (i, j), value x[i, j] / s[i])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.s_tir import SBlockRealize
from tvm.tirx import IterVar, PrimFunc

Buffer = Any  # a TIR variable of a buffer's type

_COMBINES = {tirx.Add: "sum", tirx.Mul: "product", tirx.Max: "max", tirx.Min: "min", tirx.And: "and", tirx.Or: "or"}
_NEUTRAL = {"sum": 0.0, "product": 1.0, "and": 1.0, "or": 0.0}


@dataclass(frozen=True, slots=True, eq=False)
class Nest:
    """``buffer[axes] = value``, or of a reduction ``buffer[axes] = combine of value over the reduced axes``.

    axes: None where the extent is 1 and has no variable. zeros: variables that are 0. lengths: of the reduced axes.
    combine: a value of ``_COMBINES``, "" for none. init: what a reduction begins with.
    """

    buffer: Buffer
    axes: tuple[tirx.Var | None, ...]
    value: Expr
    zeros: tuple[tirx.Var, ...] = ()
    reduced: tuple[tirx.Var, ...] = ()
    lengths: tuple[int, ...] = ()
    combine: str = ""
    init: Expr | None = None

    @property
    def extents(self) -> tuple[int, ...]:
        return shape_of_buffer(self.buffer)

    @property
    def dtype(self) -> str:
        return str(self.buffer.ty.dtype)

    @property
    def length(self) -> int:
        """Elements that one result is made of."""
        return prod(self.lengths)

    @property
    def any_order(self) -> bool:
        """Whether what it begins with changes nothing, so that parts may be combined."""
        if not isinstance(self.init, (tirx.IntImm, tirx.FloatImm)):
            return False
        return self.combine in ("max", "min") or float(self.init.value) == _NEUTRAL.get(self.combine)


def shape_of_buffer(buffer: Buffer) -> tuple[int, ...]:
    return tuple(int(extent) for extent in buffer.ty.shape)


def read_nests(function: PrimFunc) -> list[Nest] | None:
    """The nests of a function, in order; None if it has anything else: loops that depend on data, several stores."""
    if not isinstance(function.body, SBlockRealize) or function.body.block.name_hint != "root":
        return None
    root = function.body.block
    statements = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    found: list[Nest] = []
    for statement in statements:
        nests = _nests(statement)
        if nests is None:
            return None
        found += nests
    return found


def _nests(statement: tirx.Stmt) -> list[Nest] | None:
    """Several of a reduction with several sums, if each is a sum on its own."""
    loops: list[tirx.For] = []
    while isinstance(statement, tirx.For):
        loops.append(statement)
        statement = statement.body
    if not isinstance(statement, SBlockRealize):
        return None
    block, stores = statement.block, _stores(statement.block.body)
    if not stores or any(not _same(store.indices, stores[0].indices) for store in stores):
        return None
    store = stores[0]
    fixed = [a for a, v in zip(block.iter_vars, statement.iter_values, strict=True) if _is(v, 0)]  # of extent 1
    moving = [a for a, v in zip(block.iter_vars, statement.iter_values, strict=True) if not _is(v, 0)]
    bound = [value for value in statement.iter_values if not _is(value, 0)]
    if not _same(bound, [loop.loop_var for loop in loops if not _is(loop.extent, 1) or loop.loop_var in bound]):
        return None
    if block.match_buffers or not all(_is(loop.min, 0) for loop in loops) or not _is(statement.predicate, 1):
        return None
    axes = [axis for axis in moving if axis.iter_type == IterVar.DataPar]
    reduced = [axis for axis in moving if axis.iter_type == IterVar.CommReduce]
    extents = shape_of_buffer(store.buffer)
    zeros = [a.var for a in fixed]
    indices = [None if _is(i, 0) or i in zeros else i for i in store.indices]
    used = [i for i in indices if i is not None]
    if len(axes) + len(reduced) != len(moving) or not _same(used, [axis.var for axis in axes]):
        return None
    if [int(a.dom.extent) for a in axes] != [e for e, i in zip(extents, indices, strict=True) if i is not None]:
        return None
    if any(i is None and e != 1 for e, i in zip(extents, indices, strict=True)):
        return None
    if not reduced:
        return [Nest(store.buffer, tuple(indices), store.value, tuple(zeros))] if len(stores) == 1 else None
    over, lengths = tuple(a.var for a in reduced), tuple(int(a.dom.extent) for a in reduced)
    made = {s.buffer for s in stores}
    begins = {init.buffer: init for init in _stores(block.init) or ()}
    found = []
    for each in stores:
        nest = Nest(each.buffer, tuple(indices), each.value, tuple(zeros), over, lengths)
        reduction = _reduction(nest, each, begins.get(each.buffer))
        if reduction is None or any(load.source in made for load in loads(reduction.value)):
            return None
        found.append(reduction)
    return found


def _stores(body: tirx.Stmt | None) -> list[tirx.BufferStore] | None:
    """The stores that a nest's statement consists of, values named before in their places."""
    statements = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    named = {s.var: s.value for s in statements if isinstance(s, tirx.Bind)}
    found = []
    for statement in statements:
        if isinstance(statement, tirx.BufferStore):
            value = named.get(statement.value) if isinstance(statement.value, tirx.Var) else statement.value
            found.append(tirx.BufferStore(statement.buffer, value, statement.indices))
        elif not isinstance(statement, tirx.Bind):
            return None
    return found


def _is(expr: Any, value: int) -> bool:
    return isinstance(expr, tirx.IntImm) and int(expr.value) == value


def _same(found: Sequence[Any], wanted: Sequence[tirx.Var]) -> bool:
    return len(found) == len(wanted) and all(a.same_as(b) for a, b in zip(found, wanted, strict=True))


def _reduction(nest: Nest, store: tirx.BufferStore, init: tirx.Stmt | None) -> Nest | None:
    """Of ``s[i] = s[i] + x[i, k]``."""
    combine = _COMBINES.get(type(nest.value))
    if combine is None or not isinstance(init, tirx.BufferStore):
        return None
    for total, value in ((nest.value.a, nest.value.b), (nest.value.b, nest.value.a)):
        if type(total).__name__ != "TensorLoad" or not total.source.same_as(nest.buffer):
            continue
        if all(a.same_as(b) or _is(a, 0) for a, b in zip(total.indices, store.indices, strict=True)):
            return replace(nest, value=value, combine=combine, init=init.value)
    return None


def loads(expr: Any) -> list[Any]:
    """Every load in an expression, those in indices included."""
    found = []
    if type(expr).__name__ == "TensorLoad":
        found.append(expr)
        parts: Sequence[Any] = expr.indices
    elif hasattr(expr, "args"):
        parts = expr.args
    else:
        names = ("a", "b", "value", "body", "condition", "true_value", "false_value")
        parts = [getattr(expr, name) for name in names if isinstance(getattr(expr, name, None), Expr)]
    return found + [load for part in parts if isinstance(part, Expr) for load in loads(part)]


def is_cheap(expr: Any) -> bool:
    """Loads and arithmetic only: nothing that costs more than to load its result."""
    if hasattr(expr, "args") or isinstance(expr, (tirx.Let, tirx.Div)):
        return False
    names = ("a", "b", "value", "condition", "true_value", "false_value")
    return all(is_cheap(p) for name in names if isinstance(p := getattr(expr, name, None), Expr))
