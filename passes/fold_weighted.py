"""Convolutions and matrix products become integer layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import tvm

from qcompile.passes.composite_weighted import weighted
from qcompile.passes.fold_layer import fold_pass

KINDS = ("conv", "conv_transpose", "dense", "scale")


def fold_weighted(layers: Mapping[str, str] | None = None, keep: Collection[str] = ()) -> tvm.ir.transform.ModulePass:
    """A convolution or dense layer between codes, with bias, residual and activation, is one composite::

        y = conv2d(dequantize(x), dequantize(w))
        z = add(y, dequantize(b))
        r = add(z, dequantize(s))                      ->      a = conv2d(x, w, b, multiplier, s)
        a = relu(r)
        a.q = quantize(a)

    Without the quantize the result is float32. Refused: a weight that is not symmetric int8 by output channel, a bias
    of another scale than the sum's, sums that may exceed int32, a float32 residual added to codes.
    """
    return fold_pass("FoldWeighted", dict.fromkeys(KINDS, weighted), layers, keep, fold_weighted.__doc__)
