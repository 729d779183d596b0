"""Rows of a table of codes are looked up as codes, and scaled then; those of a table of float16 as such."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np
import tvm
from tvm import relax

from qcompile import ops
from qcompile.passes.base import dtype_of, module_pass, shape_of
from qcompile.passes.chain import Chain, Uses
from qcompile.passes.composite import Composite, scaled_codes
from qcompile.passes.fold_layer import Folded, Layer, rewrite
from qcompile.passes.group_weights import group_refusal, split_groups
from qcompile.passes.quantized import QuantizedConstant, constant_of, stored_of


def fold_gather(
    layers: Mapping[str, str] | None = None, keep: Collection[str] = (), groups: Mapping[str, int] | None = None
) -> tvm.ir.transform.ModulePass:
    """An embedding, of words and of positions, is one composite::

        e = take(dequantize(table, scales, axis=0), ids)
        y = add(e, dequantize(positions, scales, axis=0))       ->    y = gather(table, scales, ids, positions, scales)

    The result is float32. Refused: tables that are neither float16 nor int8, symmetric, with scales by row.
    layers: variable -> ONNX node, for reports. keep: names of layers that stay in float32. groups: layer -> how many
    neighbours in a row share an integer scale; there, int16 codes of the table become int4 codes and that scale.
    """
    fold = partial(_gather, groups=groups or {})

    def judge(chain: Chain, uses: Uses) -> Layer | str:
        return "float32 by the plan" if chain.name in keep else Layer(chain, (), None, None, uses.definitions)

    return module_pass(
        "FoldGather",
        lambda module: rewrite(module, {"gather": fold}, layers or {}, "FoldGather", judge),
        fold_gather.__doc__,
    )


def _gather(layer: Layer, groups: Mapping[str, int]) -> Folded | str:
    chain = layer.chain
    group = groups.get(chain.name, 0)
    table = _rows(layer, chain.weight, np.int16 if group else np.int8)
    addend = None if chain.bias is None else _rows(layer, chain.bias)
    if isinstance(table, str):
        return table
    if isinstance(addend, str):
        return addend
    if addend is not None and (addend.codes.dtype == np.float16) != (table.codes.dtype == np.float16):
        return "one of its tables is float16, the other is not"
    indices = chain.call.args[1]
    codes, steps = table.codes, []
    if group:
        parts = group_refusal(chain, group) or split_groups(codes, group)
        if isinstance(parts, str):
            return parts
        codes, steps = parts[0], [relax.const(parts[1])]
    args = [relax.const(codes), relax.const(table.scale), indices, *steps]
    if addend is not None:
        args += [relax.const(addend.codes), relax.const(addend.scale)]
    composite = Composite(args)
    stored = scaled_codes(composite, 0, 3) if group else composite.params[0]
    rows = _real(composite, stored, composite.params[1])
    v = composite.emit(relax.op.take(rows, composite.params[2], 0, mode="wrap"))
    if addend is not None:
        v = composite.emit(relax.op.add(v, _real(composite, *composite.params[-2:])))
    return Folded(ops.Gather(group), composite, v)


def _rows(layer: Layer, table: relax.Expr, dtype: type[np.integer] = np.int8) -> QuantizedConstant | str:
    """A table (..., R, D) as (R, D), with R scales; of float16 they are 1."""
    definition = layer.definitions.get(table) if isinstance(table, relax.Var) else None
    narrow = stored_of(definition)
    if narrow is not None and narrow.dtype == np.float16:
        rows, width = narrow.shape[-2:]
        return QuantizedConstant(narrow.reshape(rows, width), np.ones(rows, np.float32), np.zeros(rows, np.int8), 0)
    found = constant_of(definition)
    if found is None or found.codes.dtype != dtype:
        return f"the table is not {dtype.__name__}"
    if found.zero_point.any():
        return "the table is not symmetric"
    rows, width = found.codes.shape[-2:]
    if found.scale.size > 1 and found.axis % found.codes.ndim != found.codes.ndim - 2:
        return "the table's scales are not by row"
    scale = np.ascontiguousarray(np.broadcast_to(found.scale.reshape(-1), (rows,)))
    return QuantizedConstant(found.codes.reshape(rows, width), scale, np.zeros(rows, np.int8), 0)


def _real(composite: Composite, table: relax.Var, scale: relax.Var) -> relax.Var:
    """A table of the arguments in real numbers."""
    if dtype_of(table) == "float16":
        return composite.emit(relax.op.astype(table, "float32"))
    zeros = relax.const(np.zeros(shape_of(table)[0], dtype_of(table)))
    return composite.emit(relax.op.dequantize(table, scale, zeros, 0))
