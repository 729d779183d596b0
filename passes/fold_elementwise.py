"""Sums and products of two tensors, functions of one, and concatenation become integer layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import tvm

from qcompile.passes.composite_elementwise import binary, concat, function
from qcompile.passes.fold_layer import fold_pass


def fold_elementwise(
    layers: Mapping[str, str] | None = None, keep: Collection[str] = ()
) -> tvm.ir.transform.ModulePass:
    """Element by element, on codes::

        y = add(dequantize(a), dequantize(b));  z = relu(y);  z.q = quantize(z)    ->    z = binary(a, b)
        y = sigmoid(dequantize(a));  y.q = quantize(y)                             ->    y = lookup(a, table)
        y = concat(dequantize(a), dequantize(b));  y.q = quantize(y)               ->    y = concat(a, b)

    A function is any tree of element-wise operators over one tensor and numbers. Refused: a float32 operand, and a
    concatenation to float32.
    """
    folds = {"binary": binary, "function": function, "concat": concat}
    return fold_pass("FoldElementwise", folds, layers, keep, fold_elementwise.__doc__)
