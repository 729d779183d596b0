"""``Emitter``: what converters build bindings with. Variables are named after the ONNX tensor that they compute.

The result of an ONNX node takes its output's name, verbatim; a step on the way is called ``<output>~<operator>``::

    y = Conv(x, w, b)   ->   y~conv2d = nn.conv2d(x, w)
                             y        = add(y~conv2d, b)

It also stands in for the ``BlockBuilder`` that TVM's own converters expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tvm
from tvm import relax
from tvm.ir import GlobalVar

from qcompile.errors import QCompileError
from qcompile.frontend.onnx_graph import Node
from qcompile.graph import MainBuilder
from qcompile.model import Layer


class Emitter:
    """Writes ``main``; ``layers`` says which node each variable came from."""

    def __init__(self, params: Sequence[relax.Var], taken: Iterable[str]):
        self.main = MainBuilder(params)
        self.layers: dict[str, Layer] = {}
        self._taken = set(taken)
        self._te = relax.BlockBuilder()
        self._functions: dict[GlobalVar, GlobalVar] = {}
        self._node: Node | None = None
        self._last: relax.Var | None = None  # the latest step of the node, while nothing reads it

    def begin(self, node: Node) -> None:
        """What follows belongs to ``node``."""
        self._node, self._last = node, None

    def finish(self, value: relax.Expr, name: str) -> relax.Expr:
        """``value`` under the name of an ONNX tensor; what other nodes have made is returned as it is."""
        if self._last is not None and value.same_as(self._last):
            self.layers[name] = self.layers.pop(self._last.name)
            self._last = None
            return self.main.rename_last(name)
        if isinstance(value, relax.Var | tvm.ir.GenericConst):
            return value
        return self._bind(self._flat(value, nested=False), name)

    def emit(self, value: relax.Expr, name_hint: str = "") -> relax.Expr:
        """A variable (or constant) that holds ``value``, a step of the current node."""
        return self._atom(value)

    def normalize(self, value: relax.Expr) -> relax.Expr:
        return self._atom(value)

    def emit_te(self, function: Callable, *args: Any, **kwargs: Any) -> relax.Expr:
        """A call of a TIR function made from a tensor expression."""
        call = self._te.call_te(function, *[self._argument(a) for a in args], **kwargs)
        return self._atom(call)

    def call_function(
        self, function: tvm.tirx.PrimFunc, name: str, args: Sequence[relax.Expr], types: Sequence[relax.TensorType]
    ) -> relax.Expr:
        """A call of a kernel of our own, which gives tensors of these types."""
        gvar = self.main.add_function(function, name)
        self._functions[gvar] = gvar
        return self._atom(relax.call_tir(gvar, [self._atom(arg) for arg in args], list(types)))

    def match_cast(self, value: relax.Expr, ty: Any) -> relax.Expr:
        raise self.data_dependent()

    def data_dependent(self) -> QCompileError:
        """The error for a shape that only the data tells."""
        return QCompileError(
            "the shape of its result depends on the data",
            node=self._node.label if self._node else None,
            remedy="qcompile needs static shapes: cut the model before this node",
        )

    def _argument(self, value: Any) -> Any:
        return self._atom(value) if isinstance(value, relax.Call | relax.TupleGetItem) else value

    def _atom(self, value: relax.Expr) -> relax.Expr:
        """``value`` as something that can be an argument: calls in it are bound to variables of their own."""
        if isinstance(value, relax.Tuple):
            return relax.Tuple([self._atom(field) for field in value.fields])
        if isinstance(value, relax.Call | relax.TupleGetItem):
            flat = self._flat(value, nested=True)
            return self._bind(flat, self._step_name(flat))
        return value

    def _flat(self, value: relax.Expr, nested: bool) -> relax.Expr:
        if isinstance(value, relax.TupleGetItem):
            return relax.TupleGetItem(self._atom(value.tuple_value), value.index)
        if isinstance(value, relax.Call):
            args = [self._function(a) if isinstance(a, GlobalVar) else self._atom(a) for a in value.args]
            return relax.Call(value.op, args, value.attrs, value.ty_args, value.span)
        return value

    def _function(self, gvar: GlobalVar) -> GlobalVar:
        """The function of a call_tir, moved into the module that is being built."""
        if gvar not in self._functions:
            function = self._te.get()[gvar].without_attr("global_symbol")
            self._functions[gvar] = self.main.add_function(function, gvar.name_hint)
        return self._functions[gvar]

    def _bind(self, value: relax.Expr, name: str) -> relax.Var:
        var = self._last = self.main.emit(value, name)
        if not _is_static(var.ty):
            raise self.data_dependent()
        if self._node is not None:
            self.layers[name] = Layer(self._node.name, self._node.op_type)
        return var

    def _step_name(self, value: relax.Expr) -> str:
        step = value.op.name.rpartition(".")[2] if isinstance(value, relax.Call) else f"{value.index}"
        if step == "call_tir":
            step = value.args[0].name_hint
        prefix = next((out for out in self._node.outputs if out), self._node.name) if self._node else "value"
        return self.fresh(f"{prefix}~{step}")

    def fresh(self, name: str) -> str:
        """``name``, with a number behind it if it is taken."""
        unique, count = name, 1
        while unique in self._taken:
            count += 1
            unique = f"{name}_{count}"
        self._taken.add(unique)
        return unique


def _is_static(ty: tvm.ir.Type) -> bool:
    """Whether all shapes of a type are known; shape and scalar types are helpers of TVM's converters."""
    if isinstance(ty, relax.TupleType):
        return all(_is_static(field) for field in ty.fields)
    if isinstance(ty, relax.TensorType):
        shape = ty.shape
        return isinstance(shape, relax.ShapeExpr) and all(isinstance(d, tvm.tirx.IntImm) for d in shape.values)
    return True
