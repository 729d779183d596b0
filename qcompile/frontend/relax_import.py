"""``import_relax``: any Relax module as a ``Model``, for researchers who build networks without ONNX.

Before -> after::

    main(x, w) with "params", nested calls,      main(x): one dataflow block, one operator a binding, constants inline,
    several blocks, unnamed lv, lv1...           a tuple of results, every name used once
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule

from qcompile.errors import QCompileError
from qcompile.graph import MainBuilder
from qcompile.model import Layer, Model, TensorSpec


def import_relax(
    mod: IRModule, params: Mapping[str, np.ndarray] | None = None, *, name: str = "main", source: str = "relax"
) -> Model:
    """Normalises the function ``name`` of ``mod``; the module itself is not changed.

    params: values of parameters that are weights, by name; what the function's own "params" attribute holds is bound as
    well. What remains are the model's inputs; they must have static shapes. Results are called by their variables.
    """
    if name not in [g.name_hint for g, f in mod.functions_items() if isinstance(f, relax.Function)]:
        raise QCompileError(f"the module has no Relax function {name!r}", node=source, remedy="name the entry function")
    mod = _inlined(mod, name)
    function = _bound(mod, name, params or {}, source)
    _check_params(function, source)
    return _Rebuilder(mod, name, function, source).model()


def _inlined(mod: IRModule, name: str) -> IRModule:
    """A module whose function ``name`` has the bodies of the private Relax functions that it called."""
    copy = IRModule(dict(mod.functions_items()))
    entry = copy.get_global_var(name)
    copy.update_func(entry, copy[entry].with_attr("global_symbol", name))  # without one it would count as private
    return relax.transform.InlinePrivateFunctions()(copy)


def _bound(mod: IRModule, name: str, params: Mapping[str, np.ndarray], source: str) -> relax.Function:
    """The function with its weights as constants."""
    function = mod[name]
    own = function.attrs.get("params") if function.attrs else None
    values = dict(params)
    if own is not None:
        weights = function.params[int(function.attrs["num_input"]) :]
        values = {w.name: v.numpy() for w, v in zip(weights, own, strict=True)} | values
    known = {p.name for p in function.params}
    for unknown in values.keys() - known:
        raise QCompileError(
            f"no parameter {unknown!r}", node=source, remedy=f"parameters are: {', '.join(sorted(known))}"
        )
    if not values:
        return function
    tensors = {key: tvm.runtime.tensor(np.ascontiguousarray(value)) for key, value in values.items()}
    return relax.transform.BindParams(name, tensors)(mod)[name]


def _check_params(function: relax.Function, source: str) -> None:
    for p in function.params:
        if not _is_static(p.ty):
            raise QCompileError(
                "is not a tensor of static shape", node=f"{source}: parameter {p.name}", remedy="give it a static shape"
            )


class _Rebuilder:
    """Writes the bindings of a function into a new ``main``."""

    def __init__(self, mod: IRModule, name: str, function: relax.Function, source: str):
        self.function, self.source = function, source
        base = IRModule({g: f for g, f in mod.functions_items() if g.name_hint != name})
        self._taken: set[str] = set()
        self._layers: dict[str, Layer] = {}
        self.params = [relax.Var(self._fresh(p.name or "input"), p.ty) for p in function.params]
        self.main = MainBuilder(self.params, base)
        self._values: dict[relax.Var, relax.Expr] = dict(zip(function.params, self.params, strict=True))

    def model(self) -> Model:
        body = self.function.body
        blocks, result = (body.blocks, body.body) if isinstance(body, relax.SeqExpr) else ([], body)
        for block in blocks:
            for binding in block.bindings:
                self._bind(binding)
        outputs = self._outputs(self._flat(result, "result"))
        names: set[str] = set()
        return Model(
            module=self.main.module(outputs),
            inputs=tuple(_spec(p.name, p) for p in self.params),
            outputs=tuple(
                _spec(_unique(getattr(o, "name", "") or f"output_{i}", names), o) for i, o in enumerate(outputs)
            ),
            layers=self._layers,
            source=self.source,
        )

    def _outputs(self, result: relax.Expr) -> list[relax.Expr]:
        """What the function returns, as tensors; a variable that holds a tuple is taken apart."""
        if isinstance(result, relax.Tuple):
            return [tensor for field in result.fields for tensor in self._outputs(field)]
        if isinstance(result.ty, relax.TupleType):
            fields = [
                self._emit(relax.TupleGetItem(result, i), f"{result.name}~{i}", "TupleGetItem")
                for i in range(len(result.ty.fields))
            ]
            return [tensor for field in fields for tensor in self._outputs(field)]
        if not _is_static(result.ty):
            raise self._refuse(getattr(result, "name", "result"), "is not a tensor of static shape", "return tensors")
        return [result]

    def _bind(self, binding: relax.Binding) -> None:
        if not isinstance(binding, relax.VarBinding):
            raise self._refuse(binding.var.name, "casts a shape at run time", "qcompile needs static shapes")
        value, name = binding.value, binding.var.name
        if isinstance(value, relax.If | relax.Function | relax.SeqExpr):
            raise self._refuse(name, "control flow and nested functions are not supported", "inline them first")
        self._values[binding.var] = self._flat(value, name or "value")

    def _refuse(self, name: str, reason: str, remedy: str) -> QCompileError:
        return QCompileError(reason, node=f"{self.source}: {name}", remedy=remedy)

    def _flat(self, value: relax.Expr, name: str) -> relax.Expr:
        """``value`` as a variable, constant or tuple of such; calls are bound under ``name``."""
        if isinstance(value, relax.Var):
            return self._values[value]
        if isinstance(value, relax.Tuple):
            return relax.Tuple([self._flat(f, name) for f in value.fields])
        if isinstance(value, relax.TupleGetItem):
            whole = self._flat(value.tuple_value, name)
            if isinstance(whole, relax.Tuple):
                return whole.fields[value.index]
            return self._emit(relax.TupleGetItem(whole, value.index), name, "TupleGetItem")
        if isinstance(value, relax.Call):
            args = [self._flat(a, f"{name}~{i}") if isinstance(a, relax.Expr) else a for i, a in enumerate(value.args)]
            op = getattr(value.op, "name", None) or getattr(value.op, "name_hint", "call")
            return self._emit(relax.Call(value.op, args, value.attrs, value.ty_args), name, str(op).rpartition(".")[2])
        return value

    def _emit(self, value: relax.Expr, name: str, kind: str) -> relax.Var:
        name = self._fresh(name)
        var = self.main.emit(value, name)
        if isinstance(var.ty, relax.TensorType) and not _is_static(var.ty):
            raise self._refuse(name, "the shape of its result depends on the data", "qcompile needs static shapes")
        self._layers[name] = Layer(name, kind)
        return var

    def _fresh(self, name: str) -> str:
        return _unique(name, self._taken)


def _unique(name: str, taken: set[str]) -> str:
    """``name``, with a number behind it if it is taken; takes it."""
    unique, count = name, 0
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique


def _is_static(ty: tvm.ir.Type) -> bool:
    shape = ty.shape if isinstance(ty, relax.TensorType) else None
    return isinstance(shape, relax.ShapeExpr) and all(isinstance(d, tvm.tirx.IntImm) for d in shape.values)


def _spec(name: str, value: relax.Expr) -> TensorSpec:
    return TensorSpec(name, tuple(int(d) for d in value.ty.shape.values), str(value.ty.dtype))
