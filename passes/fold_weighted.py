"""Convolutions and matrix products become integer layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import tvm

from qcompile.passes.composite_weighted import weighted
from qcompile.passes.fold_layer import fold_pass

KINDS = ("conv", "conv_transpose", "dense", "scale")


def fold_weighted(
    layers: Mapping[str, str] | None = None, keep: Collection[str] = (), groups: Mapping[str, int] | None = None
) -> tvm.ir.transform.ModulePass:
    """A convolution or dense layer between codes, with bias, residual and activation, is one composite::

        y = conv2d(dequantize(x), dequantize(w))
        z = add(y, dequantize(b))
        r = add(z, dequantize(s))                      ->      a = conv2d(x, w, b, multiplier, s)
        a = relu(r)
        a.q = quantize(a)

    Without the quantize the result is float32. Refused: a weight that is not symmetric int8 by output channel, a bias
    of another scale than the sum's, sums that may exceed int32, a float32 residual added to codes.

    groups: layer -> how many neighbours along the reduction share an integer scale. There, int16 codes of a dense layer
    become int4 codes and that scale; refused where they are not the product of such.
    """
    fold = partial(weighted, groups=groups or {})
    return fold_pass("FoldWeighted", dict.fromkeys(KINDS, fold), layers, keep, fold_weighted.__doc__)
