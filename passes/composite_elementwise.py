"""The composites of element-wise layers: sums and products of two tensors, functions of one, concatenation."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile import ops
from qcompile.ops import Affine
from qcompile.passes import function_tree
from qcompile.passes.base import op_name
from qcompile.passes.composite import Composite
from qcompile.passes.fold_layer import Folded, Layer
from qcompile.passes.quantized import quantize
from qcompile.reference.arithmetic import dequantize
from qcompile.reference.arithmetic import quantize as encode


def binary(layer: Layer) -> Folded | str:
    call, (a, b) = layer.chain.call, layer.inputs
    composite = Composite([a.expr, b.expr])
    v = composite.emit(relax.Call(call.op, [composite.real(0, a.affine), composite.real(1, b.affine)], call.attrs))
    spec = ops.Binary(op_name(call), a.affine, b.affine, layer.epilogue)
    return Folded(spec, composite, composite.finish(v, layer.epilogue))


def function(layer: Layer) -> Folded | str:
    """A tree of element-wise operators as a table of 256 results."""
    chain = layer.chain
    if layer.x is None:
        return "a float32 function has no composite"
    table = tabulate(layer)
    composite = Composite([layer.inputs[0].expr, relax.const(table)])
    new: dict[relax.Expr, relax.Expr] = {chain.inputs[0]: composite.real(0, layer.x)}
    for var in chain.members:
        value = layer.definitions[var]
        new[var] = composite.emit(relax.Call(value.op, [new.get(arg, arg) for arg in value.args], value.attrs))
    result = new[chain.out]
    if layer.out is not None:
        result = composite.emit(quantize(result, layer.out))
    name = function_tree.title(chain.members, layer.definitions)
    return Folded(ops.Lookup(name, layer.x, layer.out), composite, result)


def tabulate(layer: Layer) -> np.ndarray:
    """(256,): the function of each code in order, in codes of the output, or float32."""
    chain, x = layer.chain, layer.x
    reals = dequantize(np.arange(x.qmin, x.qmax + 1), x)
    values = function_tree.evaluate(chain.out, chain.inputs[0], layer.definitions, reals)
    return values if layer.out is None else encode(values, layer.out)


def concat(layer: Layer) -> Folded | str:
    """Concatenation of different codes; of equal codes it is a move of data, and folded there."""
    if layer.out is None or layer.x is None:
        return "its result is float32"
    call = layer.chain.call
    axis = int(call.attrs.axis) % len(layer.chain.out.ty.shape)
    composite = Composite([operand.expr for operand in layer.inputs])
    parts = [composite.real(i, operand.affine) for i, operand in enumerate(layer.inputs)]
    v = composite.emit(relax.op.concat(parts, axis))
    inputs: tuple[Affine, ...] = tuple(operand.affine for operand in layer.inputs if operand.affine)
    return Folded(ops.Concat(axis, inputs, layer.out), composite, composite.finish(v, layer.epilogue))
