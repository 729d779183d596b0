"""Reading and rebuilding the ``main`` function of a module: one dataflow block, one operator a binding.

Relax's own mutators rename variables (``BlockBuilder.emit`` turns "conv1/Relu:0" into "conv1_Relu_0"), and every report
speaks in ONNX names; so passes that create bindings build them here, where names stay verbatim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import tvm
from tvm import relax
from tvm.ir import GlobalVar, IRModule, TupleType

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Graph:
    """``main`` as a list.

    bindings: (variable, value) in order; every value is a flat Relax expression over parameters, earlier variables and
    constants.
    outputs: the variables (or parameters, constants) that the function returns as a tuple.
    """

    params: tuple[relax.Var, ...]
    bindings: tuple[tuple[relax.Var, relax.Expr], ...]
    outputs: tuple[relax.Expr, ...]

    def users(self) -> dict[relax.Var, list[relax.Var]]:
        """Variable -> the variables whose value reads it, in order, once each; outputs are not counted."""
        users: dict[relax.Var, list[relax.Var]] = {p: [] for p in self.params}
        for var, value in self.bindings:
            users.setdefault(var, [])
            for used in dict.fromkeys(reads(value)):
                users[used].append(var)
        return users

    def definitions(self) -> dict[relax.Var, relax.Expr]:
        return dict(self.bindings)


def reads(value: relax.Expr) -> list[relax.Var]:
    """The variables that an expression reads, in order, repeated as often as it reads them."""
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, relax.Call):
        return [v for arg in value.args for v in reads(arg)]
    if isinstance(value, relax.Tuple):
        return [v for field in value.fields for v in reads(field)]
    if isinstance(value, relax.TupleGetItem):
        return reads(value.tuple_value)
    return []


def substitute(value: relax.Expr, replace: Mapping[relax.Var, relax.Expr]) -> relax.Expr:
    """``value`` reading other expressions; a call whose arguments have other types than before has its type to be
    inferred anew.
    """
    if isinstance(value, relax.Var):
        return replace.get(value, value)
    if isinstance(value, relax.Call):
        args = [substitute(arg, replace) for arg in value.args]
        call = relax.Call(value.op, args, value.attrs, value.ty_args, value.span)
        if is_typed(value) and all(map(_same_type, args, value.args)):
            relax.expr._update_type(call, value.ty)
        return call
    if isinstance(value, relax.Tuple):
        return relax.Tuple([substitute(field, replace) for field in value.fields])
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(substitute(value.tuple_value, replace), value.index)
    return value


def is_typed(value: relax.Expr) -> bool:
    """Whether the type of a flat call is known, so that there is nothing to normalize."""
    return isinstance(value, relax.Call) and isinstance(value.ty, (relax.TensorType, TupleType))


def _same_type(new: relax.Expr, old: relax.Expr) -> bool:
    """Whether ``new`` stands for ``old`` without anything else to infer, so that a flat expression stays one."""
    return new.same_as(old) or (isinstance(new, relax.Var) and isinstance(old, relax.Var) and new.ty.same_as(old.ty))


def read(module: IRModule) -> Graph:
    """The graph of ``module["main"]``."""
    main = module[MAIN]
    bindings = [(b.var, b.value) for block in main.body.blocks for b in block.bindings]
    outputs = main.body.body
    definitions = dict(bindings)
    returned = definitions.get(outputs) if isinstance(outputs, relax.Var) else outputs
    if isinstance(returned, relax.Tuple):
        if isinstance(outputs, relax.Var):
            bindings = [(v, value) for v, value in bindings if not v.same_as(outputs)]
        return Graph(tuple(main.params), tuple(bindings), tuple(returned.fields))
    return Graph(tuple(main.params), tuple(bindings), (outputs,))


class MainBuilder:
    """Writes a new ``main``. Variables keep the names that they are given, verbatim.

    ``base``: the module whose attributes of ``main`` and other functions are kept, less the Relax functions that
    nothing calls any more.
    """

    def __init__(self, params: Sequence[relax.Var], base: IRModule | None = None):
        self.params = tuple(params)
        self._attrs = base[MAIN].attrs if base and MAIN in base else None
        self._bindings: list[relax.VarBinding] = []
        self._builder = relax.BlockBuilder()
        self._functions: dict[GlobalVar, tvm.ir.BaseFunc] = {
            gvar: f for gvar, f in (base.functions_items() if base else ()) if gvar.name_hint != MAIN
        }
        self._taken = {gvar.name_hint for gvar in self._functions}

    def emit(self, value: relax.Expr, name: str) -> relax.Var:
        """A new variable for a flat expression; its type is inferred, if it is not known."""
        normal = value if is_typed(value) else self._builder.normalize(value)
        var = relax.DataflowVar(name, normal.ty)
        self._bindings.append(relax.VarBinding(var, normal))
        return var

    def rename_last(self, name: str) -> relax.Var:
        """The variable that was emitted last, under another name; nothing may read it yet."""
        return self.emit(self._bindings.pop().value, name)

    def add_function(self, function: tvm.ir.BaseFunc, hint: str) -> GlobalVar:
        """Adds a private function to the module; its name is ``hint`` and a number."""
        name = next(n for i in count() if (n := f"{hint}_{i}") not in self._taken)
        self._taken.add(name)
        gvar = GlobalVar(name)
        relax.expr._update_type(gvar, function.ty)
        self._functions[gvar] = function
        return gvar

    def call(self, function: relax.Function, args: Sequence[relax.Expr], name: str, hint: str) -> relax.Var:
        """A call of a new private Relax function (a composite layer)."""
        return self.emit(relax.Call(self.add_function(function, hint), list(args)), name)

    def module(self, outputs: Iterable[relax.Expr]) -> IRModule:
        """The module: this ``main``, returning the tuple of ``outputs``, and the functions that it calls."""
        result = self._builder.normalize(relax.Tuple(list(outputs)))
        out = relax.Var("outputs", result.ty)
        block = relax.DataflowBlock([*self._bindings, relax.VarBinding(out, result)])
        body = self._builder.normalize(relax.SeqExpr([block], out))
        main = relax.Function(list(self.params), body, out.ty, attrs=self._attrs).with_attr("global_symbol", MAIN)
        return relax.transform.DeadCodeElimination([MAIN])(IRModule({GlobalVar(MAIN): main, **self._functions}))
