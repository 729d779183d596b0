"""Transposes are carried down past operators that do not mind the order of axes, until they meet their inverse."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from networkx.utils import UnionFind
from tvm import relax
from tvm.ir import IRModule

from qcompile import graph
from qcompile.passes.base import Draft, array, constant, module_pass, op_name, rebuild, shape_of, with_args
from qcompile.passes.canonicalize_shapes import compose
from qcompile.passes.remove_identities import permutation

UNARY = {
    *("nn.relu", "nn.leakyrelu", "nn.gelu", "nn.gelu_tanh", "nn.silu", "nn.selu", "nn.softplus", "clip"),
    *("sigmoid", "tanh", "erf", "exp", "log", "sqrt", "rsqrt", "square", "abs", "negative", "sign"),
    *("floor", "ceil", "round", "sin", "cos", "astype"),
}
BINARY = {"add", "subtract", "multiply", "divide", "minimum", "maximum", "power"}
REDUCE = {"mean": relax.op.mean, "sum": relax.op.sum, "max": relax.op.max, "min": relax.op.min}
Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Carried:
    """A tensor of the old graph in the new one: ``permute_dims(stored, axes)``; a tuple: each of its fields is.

    sources: the transposes of the old graph that are carried here.
    """

    stored: relax.Expr
    axes: Axes
    sources: frozenset[relax.Var]


class _Attempt:
    """The new graph when all transposes are carried but the ``pinned`` ones, which stay where they are."""

    def __init__(self, old: graph.Graph, pinned: set[relax.Var]):
        self.pinned = pinned
        self.draft = Draft(old)
        self.plain: dict[relax.Var, relax.Expr] = {p: p for p in old.params}  # tensors in their own order of axes
        self.carried: dict[relax.Var, Carried] = {}
        self.paid: list[tuple[frozenset[relax.Var], int]] = []  # sources that met, and elements still transposed
        self.names: dict[relax.Var, str] = {}
        self.stuck: set[relax.Var] = set()  # transposes that end as an output which would be an input or another output
        taken: set[relax.Expr] = set(old.params)
        outputs = {o for o in old.outputs if isinstance(o, relax.Var)}
        for var, value in old.bindings:
            self._bind(var, value)
            if var in outputs and self.read(var).name != var.name:
                if self.read(var) in taken:
                    self.stuck.add(var)
                self.names[self.read(var)] = var.name
            if var in outputs:
                taken.add(self.read(var))
        self.outputs = [graph.substitute(o, self.plain) for o in old.outputs]

    def read(self, var: relax.Var) -> relax.Expr:
        """The tensor in its own order of axes: here a transpose that could not be avoided is written."""
        if var not in self.plain:
            held = self.carried[var]
            if held.stored.name == var.name:
                self.names.setdefault(held.stored, self.draft.step(var.name, "stored"))
            self.plain[var] = self.draft.emit(relax.op.permute_dims(held.stored, held.axes), var.name)
            self.paid.append((held.sources, _elements(var)))
        return self.plain[var]

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        if op_name(value) == "permute_dims" and var not in self.pinned:
            x = value.args[0]
            held = self.carried.get(x) or Carried(self.plain[x], tuple(range(len(shape_of(x)))), frozenset())
            self._hold(var, held.stored, compose(held.axes, permutation(value)), held.sources | {var})
            return
        operands = [self.carried[v] for v in dict.fromkeys(graph.reads(value)) if v in self.carried]
        moved = None
        if operands and all(held.axes == operands[0].axes for held in operands):
            moved = carry(value, operands[0].axes, {v: h.stored for v, h in self.carried.items()})
        if moved is not None:
            call, axes = moved
            sources = frozenset[relax.Var]().union(*(held.sources for held in operands))
            self._hold(var, self.draft.emit(call, var.name), axes, sources)
            return
        value = graph.substitute(value, {v: self.read(v) for v in graph.reads(value)})
        self.plain[var] = self.draft.emit(value, var.name)

    def _hold(self, var: relax.Var, stored: relax.Expr, axes: Axes, sources: frozenset[relax.Var]) -> None:
        if axes == tuple(range(len(axes))):
            self.plain[var] = stored
            self.paid.append((sources, 0))
        else:
            self.carried[var] = Carried(stored, axes, sources)


def _run(module: IRModule) -> IRModule:
    """Carries transposes down, and keeps what that gains::

        t = permute_dims(x, p); y = relu(t); z = permute_dims(y, p^-1)   ->   z = relu(x)

    Past element-wise operators (of operands that are all transposed alike, or constants), concat, pad, reductions,
    softmax, split and slices. Transposes that meet somewhere form a group; a group is moved if fewer elements are
    transposed afterwards than before, else it stays where it was.
    """
    old = graph.read(module)
    sources = {var for var, value in old.bindings if op_name(value) == "permute_dims"}
    pinned: set[relax.Var] = set()
    while pinned != sources:
        attempt = _Attempt(old, pinned)
        losers = attempt.stuck | _losers(sources - pinned, attempt.paid)
        if not losers:
            return rebuild(module, old.params, attempt.draft.bindings, attempt.outputs, attempt.names)
        pinned |= losers
    return module


def _losers(sources: set[relax.Var], paid: list[tuple[frozenset[relax.Var], int]]) -> set[relax.Var]:
    """The transposes of the groups that do not gain."""
    groups = UnionFind(sources)
    for group, _ in paid:
        groups.union(*group)
    gain = {root: 0 for root in map(groups.__getitem__, sources)}
    for source in sources:
        gain[groups[source]] += _elements(source)
    for group, elements in paid:
        gain[groups[next(iter(group))]] -= elements
    return {source for source in sources if gain[groups[source]] <= 0}


def _elements(var: relax.Var) -> int:
    return prod(shape_of(var))


def carry(value: relax.Expr, axes: Axes, stored: dict[relax.Var, relax.Expr]) -> tuple[relax.Expr, Axes] | None:
    """``value`` computed from stored tensors, and how its result is then to be transposed; None if it cannot be.

    All tensors that ``value`` reads and ``stored`` has are ``permute_dims(stored[.], axes)``.
    """
    kind = op_name(value)
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(stored[value.tuple_value], value.index), axes
    if kind in UNARY:
        return with_args(value, stored[value.args[0]], *value.args[1:]), axes
    if kind in BINARY:
        operands = [_operand(arg, axes, stored) for arg in value.args]
        return None if None in operands else (with_args(value, *operands), axes)
    if kind == "concat":
        fields = [stored.get(f) for f in value.args[0].fields]
        if None in fields or value.attrs.axis is None:
            return None
        return relax.op.concat(fields, axes[int(value.attrs.axis) % len(axes)]), axes
    if kind in ("nn.pad", "nn.softmax", "split", "strided_slice", *REDUCE):
        return _carry_axes(kind, value, axes, stored[value.args[0]])
    return None


def _operand(arg: relax.Expr, axes: Axes, stored: dict[relax.Var, relax.Expr]) -> relax.Expr | None:
    """An operand of a binary operator in the stored order of axes."""
    if array(arg) is None:
        held = stored.get(arg)
        return held if held is not None and len(shape_of(held)) == len(axes) else None
    values = array(arg)
    if values.ndim > len(axes):
        return None
    values = values.reshape((1,) * (len(axes) - values.ndim) + values.shape)
    return constant(values.transpose(np.argsort(axes)), str(values.dtype))


def _carry_axes(kind: str, value: relax.Call, axes: Axes, x: relax.Expr) -> tuple[relax.Expr, Axes] | None:
    """An operator that names axes, on its stored input."""
    rank, attrs = len(axes), value.attrs
    if kind == "nn.pad":
        width = [0] * (2 * rank)
        for axis, at in enumerate(axes):
            width[2 * at : 2 * at + 2] = [int(p) for p in attrs.pad_width[2 * axis : 2 * axis + 2]]
        return relax.op.nn.pad(x, width, attrs.pad_mode, attrs.pad_value), axes
    if kind == "nn.softmax":
        return relax.op.nn.softmax(x, axes[int(attrs.axis) % rank]), axes
    if kind == "split":
        return relax.op.split(x, attrs.indices_or_sections, axes[int(attrs.axis) % rank]), axes
    if kind == "strided_slice":
        named = [axes[int(axis) % rank] for axis in value.args[1].fields]
        return relax.op.strided_slice(x, named, *value.args[2:], assume_inbound=attrs.assume_inbound), axes
    reduced = range(rank) if attrs.axis is None else [int(axis) % rank for axis in attrs.axis]
    call = REDUCE[kind](x, sorted(axes[axis] for axis in reduced), attrs.keepdims)
    if attrs.keepdims:
        return call, axes
    left = [axes[axis] for axis in range(rank) if axis not in reduced]
    return call, tuple(sorted(left).index(at) for at in left)


sink_transposes = module_pass("SinkTransposes", _run, _run.__doc__)
