"""The simulation form: the float form in which each layer has a variant for each format, and a choice between them.

::

    y = conv2d_0(x, w, b)           y~fp32  = conv2d_0(x, w, b)                       float32, as a float build has it
    z = conv2d_1(y, v)       ->     y~int8  = dequantize(conv2d_1(quantize(x), ...))  codes out: an int8 layer reads y
                                    y~int8~real = conv2d_2(quantize(x), ...)          float32 out: none does
                                    y = choose_0(y~fp32, y~int8, y~int8~real)
                                    z~fp32 = conv2d_3(y, v)
                                    ...

Variants are cut out of what the compiler makes of plans in one format, so their kernels are those of a build, and every
tensor between layers is float32. That loses nothing: ``quantize`` of ``dequantize`` with the same parameters gives the
same codes, for f32(f32(k s) / s) rounds to k for every code. So a configuration gives the bits that a build of the same
plan gives, in all integer layers, whatever the size of their sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx
from tvm import relax
from tvm.ir import GlobalVar, IRModule, TupleType

from qcompile import graph, ops
from qcompile.assign.table import FLOAT
from qcompile.graph import MainBuilder
from qcompile.model import Model
from qcompile.passes.assign_storage import called_spec
from qcompile.passes.base import dtype_of, op_name
from qcompile.passes.pipeline import form_passes, run_passes
from qcompile.passes.quantized import affine_of, dequantize, quantize
from qcompile.plan import QuantPlan
from qcompile.simulate.variant import Space, Variant

CHOICE = "qcompile.choice"  # attribute of a function that gives one of its arguments
_CODES = ("uint8", "int8")


@dataclass(frozen=True, slots=True)
class SimulationForm:
    """module: in the form above. variants: by layer, in the order of its choice's arguments, fp32 first."""

    module: IRModule
    variants: Mapping[str, tuple[Variant, ...]]


Sources = Mapping[str, list[tuple[Variant, IRModule]]]  # layer -> the forms that its variants are cut out of


def simulation_form(model: Model, space: Space) -> SimulationForm:
    """See the module's docstring."""
    sources: dict[str, list[tuple[Variant, IRModule]]] = {}
    for name, plan in space.plans.items():
        layers = [layer for layer, planned in plan.layers.items() if planned.format != FLOAT]
        whole = _formed(model, plan)
        types = {var.name: dtype_of(var) for var, _ in graph.read(whole).bindings if _is_tensor(var)}
        for layer in layers:
            sources.setdefault(layer, []).append((Variant(name, types.get(layer) in _CODES), whole))
        coded = [layer for layer in layers if types.get(layer) in _CODES]
        for strangers in _strangers(coded, space):
            for variant, part in _alone(strangers, name, space):
                form = _formed(model, part)
                for layer in strangers:
                    if layer in space.residuals or not variant.residual:
                        sources[layer].append((variant, form))
    return _Writer(_formed(model, QuantPlan()), sources).run()


def _formed(model: Model, plan: QuantPlan) -> IRModule:
    return run_passes(model.module, form_passes(plan, model.layers))


def _strangers(layers: Sequence[str], space: Space) -> list[list[str]]:
    """The layers in classes such that none reads a result of its own class, or the residual of another one."""
    readers = nx.Graph()
    readers.add_nodes_from(layers)
    for layer in layers:
        added = space.residuals.get(layer, ())
        makers = (name for name in (*space.reads.get(layer, ()), *added) if name in readers)
        others = (other for other in layers if not set(added).isdisjoint(space.reads.get(other, ()))) if added else ()
        readers.add_edges_from((layer, other) for other in (*makers, *others) if other != layer)
    classes: dict[int, list[str]] = {}
    for layer, colour in nx.greedy_color(readers).items():
        classes.setdefault(colour, []).append(layer)
    return list(classes.values())


def _alone(layers: Sequence[str], format: str, space: Space) -> list[tuple[Variant, QuantPlan]]:
    """Plans in which these layers have a format and none else has, so that their results are float32."""
    bare = replace(space, residuals={}, passive=())
    plan = bare.plan(dict.fromkeys(layers, format))
    adding = [layer for layer in layers if layer in space.residuals]
    if not adding:
        return [(Variant(format), plan)]
    names = [name for layer in adding for name in space.residuals[layer]]
    more = {name: space.plans[format].tensors[name] for name in names if name in space.plans[format].tensors}
    added = bare.plan(dict.fromkeys(adding, format))
    added = replace(added, tensors={**added.tensors, **more})
    return [(Variant(format), plan), (Variant(format, residual=True), added)]


class _Writer:
    """One run: ``main`` of the float module, written anew with the variants."""

    def __init__(self, module: IRModule, sources: Sources):
        self.main, self.sources = graph.read(module), sources
        self.builder = MainBuilder(self.main.params, module)
        self.known: dict[str, relax.Expr] = {param.name: param for param in self.main.params}

    def run(self) -> SimulationForm:
        new: dict[relax.Var, relax.Expr] = {}
        variants: dict[str, tuple[Variant, ...]] = {}
        for var, value in self.main.bindings:
            value = graph.substitute(value, new)
            found = self.sources.get(var.name, [])
            options = [self.builder.emit(value, f"{var.name}~{FLOAT}" if found else var.name)]
            kinds = [Variant(FLOAT)]
            for variant, module in found:
                option = _Part(self, module, variant).layer(var.name)
                if option is not None:
                    options.append(option)
                    kinds.append(variant)
            new[var] = self.known[var.name] = self._choice(options, var.name) if found else options[0]
            if found:
                variants[var.name] = tuple(kinds)
        module = self.builder.module([graph.substitute(out, new) for out in self.main.outputs])
        return SimulationForm(module, variants)

    def _choice(self, options: list[relax.Var], name: str) -> relax.Var:
        params = [relax.Var(f"option{i}", option.ty) for i, option in enumerate(options)]
        body = relax.BlockBuilder().normalize(relax.SeqExpr([], params[0]))
        function = relax.Function(params, body, params[0].ty).with_attr(CHOICE, 1)
        return self.builder.call(function, options, name, "choice")


class _Part:
    """Copies what computes one layer out of an integer form, from the tensors between layers on."""

    def __init__(self, writer: _Writer, module: IRModule, variant: Variant):
        self.writer, self.module = writer, module
        main = graph.read(module)
        self.definitions, self.by_name = main.definitions(), {var.name: var for var, _ in main.bindings}
        self.suffix = f"~{variant.format}" + "~real" * (not variant.codes) + "~residual" * variant.residual
        self.done: dict[relax.Var, relax.Expr] = {}

    def layer(self, name: str) -> relax.Var | None:
        """The layer's result as float32; None if the form computes it as the float model does."""
        var = self.by_name.get(name)
        if var is None or not (self._reads_codes(var) or self._stores_weights(var)):
            return None
        result = self._copy(var, f"{name}{self.suffix}")
        if dtype_of(var) not in _CODES:
            return result
        return self.writer.builder.emit(dequantize(result, self._affine(var)), f"{name}{self.suffix}~decoded")

    def _reads_codes(self, var: relax.Var) -> bool:
        value = self.definitions[var]
        if _is_code(var):
            return True
        if called_spec(self.module, value) is not None and any(_is_code(arg) for arg in value.args):
            return True
        return any(op_name(self.definitions.get(read)) == "dequantize" for read in graph.reads(value))

    def _stores_weights(self, var: relax.Var) -> bool:
        """Whether a layer of floats has its weights in another type than float32."""
        value = self.definitions[var]
        return called_spec(self.module, value) is not None and any(
            _is_tensor(a) and dtype_of(a) != "float32" for a in value.args if not isinstance(a, relax.Var)
        )

    def _copy(self, var: relax.Var, name: str) -> relax.Var:
        """A binding on copies of what it reads."""
        value = self.definitions[var]
        value = graph.substitute(value, {read: self._operand(read) for read in graph.reads(value)})
        if isinstance(value, relax.Call) and isinstance(value.op, GlobalVar):
            function = self.module[value.op]
            return self.writer.builder.call(function, value.args, name, ops.spec_of(function).op)
        return self.writer.builder.emit(value, name)

    def _operand(self, var: relax.Var) -> relax.Expr:
        if var not in self.done:
            self.done[var] = self._find(var)
        return self.done[var]

    def _find(self, var: relax.Var) -> relax.Expr:
        known = self.writer.known.get(var.name)
        if known is not None and _same_type(known, var):
            return known
        spec = called_spec(self.module, self.definitions[var])
        if _is_code(var) and spec is not None and not isinstance(spec, (ops.Requantize, ops.ChannelShuffle)):
            return self.writer.builder.emit(quantize(known, self._affine(var)), f"{var.name}.q{self.suffix}")
        return self._copy(var, f"{var.name}{self.suffix}")

    def _affine(self, var: relax.Var) -> ops.Affine:
        """What codes mean: as the layer says that makes them, or those that they are moved from."""
        value = self.definitions[var]
        spec = called_spec(self.module, value)
        if isinstance(spec, ops.ChannelShuffle) or (spec is None and affine_of(value) is None):
            return self._affine(graph.reads(value)[0])
        if spec is None:
            return affine_of(value)
        return spec.epilogue.out if hasattr(spec, "epilogue") else getattr(spec, "out")  # noqa: B009 (mypy)


def _is_tensor(expr: relax.Expr) -> bool:
    return isinstance(expr.ty, relax.TensorType)


def _is_code(expr: relax.Expr) -> bool:
    return _is_tensor(expr) and dtype_of(expr) in _CODES


def _same_type(a: relax.Expr, b: relax.Expr) -> bool:
    return _dtypes(a.ty) == _dtypes(b.ty)


def _dtypes(ty: relax.Type) -> list[str]:
    return [d for field in ty.fields for d in _dtypes(field)] if isinstance(ty, TupleType) else [str(ty.dtype)]
