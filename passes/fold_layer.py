"""What the fold passes share: find chains of some kinds, judge each, put one call of a composite in its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import IRModule

from qcompile import graph, ops
from qcompile.formats import added_as
from qcompile.graph import MainBuilder
from qcompile.ops import Affine, Epilogue
from qcompile.passes.base import dtype_of, module_pass, op_name, refused
from qcompile.passes.chain import Chain, Uses, find_chains
from qcompile.passes.composite import Composite, epilogue_of
from qcompile.passes.layer_names import layer_name
from qcompile.passes.quantized import Operand, affine_of, rounded_from


@dataclass(frozen=True, slots=True)
class Layer:
    """A chain, and in which form its tensors are.

    inputs, residual: what the composite reads. out: the codes that it writes; None for float32.
    definitions: of the graph that the chain is in. rounding: the type that a layer of floats rounds inputs to, and, in
    16 bits, the residual.
    """

    chain: Chain
    inputs: tuple[Operand, ...]
    residual: Operand | None
    out: Affine | None
    definitions: Mapping[relax.Var, relax.Expr]
    rounding: str = "float32"

    @property
    def x(self) -> Affine | None:
        """Quantization of the first input."""
        return self.inputs[0].affine

    @property
    def epilogue(self) -> Epilogue:
        return epilogue_of(self.out, self.chain.clip, self.residual)


@dataclass(frozen=True, slots=True)
class Folded:
    """The composite of a layer: specification, function body as written, its result."""

    spec: ops.Spec
    composite: Composite
    result: relax.Var


Fold = Callable[[Layer], "Folded | str"]


def fold_pass(
    name: str,
    folds: Mapping[str, Fold],
    layers: Mapping[str, str] | None,
    keep: Collection[str],
    doc: str | None,
) -> tvm.ir.transform.ModulePass:
    """A pass that folds integer layers.

    folds: kind of chain -> the function that writes its composite or says why not. layers: variable -> ONNX node, for
    reports. keep: names of layers that stay in float32 although they read codes.
    """

    def judge(chain: Chain, uses: Uses) -> Layer | str:
        return "float32 by the plan" if chain.name in keep else integer_layer(chain, uses)

    return module_pass(name, lambda module: rewrite(module, folds, layers or {}, name, judge), doc)


def rewrite(
    module: IRModule,
    folds: Mapping[str, Fold],
    layers: Mapping[str, str],
    name: str,
    judge: Callable[[Chain, Uses], Layer | str],
) -> IRModule:
    """``module`` with each chain that ``judge`` accepts as a call, which has the name of the chain's last variable."""
    main = graph.read(module)
    uses = Uses(main)
    at: dict[relax.Var, tuple[Chain, Folded]] = {}
    inside: set[relax.Var] = set()
    for chain in find_chains(main):
        if chain.kind not in folds:
            continue
        layer = judge(chain, uses)
        folded = layer if isinstance(layer, str) else folds[chain.kind](layer)
        if isinstance(layer, str) or isinstance(folded, str):
            refused(name, f"{chain.name}: {folded}")
            continue
        end = uses.only_user(chain.out) if layer.out is not None else chain.out
        at[end] = chain, folded
        inside.update(chain.members)
    builder = MainBuilder(main.params, module)
    new: dict[relax.Var, relax.Expr] = {}
    for var, value in main.bindings:
        if var in at:
            chain, folded = at[var]
            node = layer_name(chain.anchor.name, layers)
            function = folded.composite.function(folded.result, folded.spec, node)
            args = [graph.substitute(arg, new) for arg in folded.composite.args]
            new[var] = builder.call(function, args, chain.name, folded.spec.op)
        elif var not in inside:
            new[var] = builder.emit(graph.substitute(value, new), var.name)
    return builder.module([graph.substitute(out, new) for out in main.outputs])


def integer_layer(chain: Chain, uses: Uses) -> Layer | str:
    """The layer if all that it reads is codes."""
    inputs = [coded(expr, uses) for expr in chain.inputs]
    if None in inputs:
        return "reads a float32 tensor"
    out = _written(chain.out, uses)
    residual = None
    if chain.residual is not None:
        residual = coded(chain.residual, uses) or Operand(chain.residual, None)
        if residual.affine is None and out is not None:
            return "adds a float32 residual to codes"
    return Layer(chain, tuple(inputs), residual, out, uses.definitions)


def float_layer(chain: Chain, uses: Uses) -> Layer | str:
    """The layer on floats; what it reads is dequantized before, and rounded inside if all of it is rounded alike."""
    operands = [*chain.inputs, *(e for e in (chain.weight, chain.residual) if e is not None)]
    if any(dtype_of(expr) != "float32" for expr in operands):
        return "not float32"
    inputs, rounding = _unrounded(chain.inputs, uses)
    residual = [chain.residual] if chain.residual is not None else []
    added, adds = _unrounded(residual, uses)
    if chain.weight is None or (residual and adds != added_as(rounding)):
        inputs, added, rounding = list(chain.inputs), residual, "float32"
    operands = [Operand(expr, None) for expr in (*inputs, *added)]
    own = tuple(operands[: len(inputs)])
    return Layer(chain, own, operands[-1] if residual else None, None, uses.definitions, rounding)


def _unrounded(tensors: Sequence[relax.Expr], uses: Uses) -> tuple[list[relax.Expr], str]:
    """What was rounded, and to which type; the tensors themselves and float32 unless all of them are rounded alike."""
    found = [rounded_from(expr, uses.definitions) for expr in tensors]
    types = {dtype for _, dtype in filter(None, found)}
    if len(types) != 1 or not all(found):
        return list(tensors), "float32"
    return [source for source, _ in filter(None, found)], types.pop()


def coded(expr: relax.Expr, uses: Uses) -> Operand | None:
    """The codes of a tensor that a dequantize makes."""
    value = uses.definitions.get(expr) if isinstance(expr, relax.Var) else None
    q = affine_of(value)
    return Operand(value.args[0], q) if q is not None and op_name(value) == "dequantize" else None


def _written(out: relax.Var, uses: Uses) -> Affine | None:
    """The codes of a result that nothing reads as float32."""
    user = uses.only_user(out)
    value = uses.definitions.get(user) if user is not None else None
    return affine_of(value) if op_name(value) == "quantize" else None
