"""Rows of a table of codes are looked up as codes, and scaled then."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import tvm
from tvm import relax

from qcompile import ops
from qcompile.passes.base import module_pass, shape_of
from qcompile.passes.chain import Chain, Uses
from qcompile.passes.composite import Composite
from qcompile.passes.fold_layer import Folded, Layer, rewrite
from qcompile.passes.quantized import QuantizedConstant, constant_of


def fold_gather(layers: Mapping[str, str] | None = None, keep: Collection[str] = ()) -> tvm.ir.transform.ModulePass:
    """An embedding, of words and of positions, is one composite::

        e = take(dequantize(table, scales, axis=0), ids)
        y = add(e, dequantize(positions, scales, axis=0))       ->    y = gather(table, scales, ids, positions, scales)

    The result is float32. Refused: tables that are not int8, symmetric, with scales by row.
    layers: variable -> ONNX node, for reports. keep: names of layers that stay in float32.
    """

    def judge(chain: Chain, uses: Uses) -> Layer | str:
        return "float32 by the plan" if chain.name in keep else Layer(chain, (), None, None, uses.definitions)

    return module_pass(
        "FoldGather",
        lambda module: rewrite(module, {"gather": _gather}, layers or {}, "FoldGather", judge),
        fold_gather.__doc__,
    )


def _gather(layer: Layer) -> Folded | str:
    chain = layer.chain
    table = _rows(layer, chain.weight)
    addend = None if chain.bias is None else _rows(layer, chain.bias)
    if isinstance(table, str):
        return table
    if isinstance(addend, str):
        return addend
    indices = chain.call.args[1]
    args = [relax.const(table.codes), relax.const(table.scale), indices]
    if addend is not None:
        args += [relax.const(addend.codes), relax.const(addend.scale)]
    composite = Composite(args)
    v = composite.emit(relax.op.take(_real(composite, 0, 1), composite.params[2], 0, mode="wrap"))
    if addend is not None:
        v = composite.emit(relax.op.add(v, _real(composite, 3, 4)))
    return Folded(ops.Gather(), composite, v)


def _rows(layer: Layer, table: relax.Expr) -> QuantizedConstant | str:
    """A table (..., R, D) as (R, D), with R scales."""
    found = constant_of(layer.definitions.get(table)) if isinstance(table, relax.Var) else None
    if found is None or found.codes.dtype != np.int8:
        return "the table is not int8"
    if found.zero_point.any():
        return "the table is not symmetric"
    rows, width = found.codes.shape[-2:]
    if found.scale.size > 1 and found.axis % found.codes.ndim != found.codes.ndim - 2:
        return "the table's scales are not by row"
    scale = np.ascontiguousarray(np.broadcast_to(found.scale.reshape(-1), (rows,)))
    return QuantizedConstant(found.codes.reshape(rows, width), scale, np.zeros(rows, np.int8), 0)


def _real(composite: Composite, codes: int, scale: int) -> relax.Var:
    """A table of the arguments in real numbers."""
    table = composite.params[codes]
    zeros = relax.const(np.zeros(shape_of(table)[0], np.int8))
    return composite.emit(relax.op.dequantize(table, composite.params[scale], zeros, 0))
