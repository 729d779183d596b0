"""``quantize`` of a ``dequantize``: nothing, or one multiplication of codes."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax
from tvm.ir import IRModule

from qcompile import graph, ops
from qcompile.graph import MainBuilder
from qcompile.passes.base import module_pass, op_name
from qcompile.passes.composite import Composite
from qcompile.passes.layer_names import layer_name
from qcompile.passes.quantized import affine_of, quantize


def fold_requantize(layers: Mapping[str, str] | None = None) -> tvm.ir.transform.ModulePass:
    """Codes to codes, without real numbers in between::

        r = dequantize(q, s, z);  p = quantize(r, s, z)      ->    uses of p read q
        r = dequantize(q, s, z);  p = quantize(r, t, y)      ->    p = requantize(q)          a composite

    layers: variable -> ONNX node, for reports.
    """
    return module_pass("FoldRequantize", lambda module: _run(module, layers or {}), fold_requantize.__doc__)


def _run(module: IRModule, layers: Mapping[str, str]) -> IRModule:
    main = graph.read(module)
    definitions = main.definitions()
    builder = MainBuilder(main.params, module)
    new: dict[relax.Var, relax.Expr] = {}
    for var, value in main.bindings:
        inner = definitions.get(value.args[0]) if op_name(value) == "quantize" else None
        x, out = affine_of(inner), affine_of(value)
        if op_name(inner) != "dequantize" or x is None or out is None or not isinstance(inner.args[0], relax.Var):
            new[var] = builder.emit(graph.substitute(value, new), var.name)
            continue
        codes = graph.substitute(inner.args[0], new)
        if x == out:
            new[var] = codes
            continue
        composite = Composite([codes])
        result = composite.emit(quantize(composite.real(0, x), out))
        function = composite.function(result, ops.Requantize(x, out), layer_name(var.name, layers))
        new[var] = builder.call(function, [codes], var.name, "requantize")
    return builder.module([graph.substitute(out, new) for out in main.outputs])
