"""Average pooling, means, bilinear resize and softmax become integer layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import tvm

from qcompile.passes.composite_pooling import avg_pool, mean, resize, softmax
from qcompile.passes.fold_layer import fold_pass


def fold_pooling(layers: Mapping[str, str] | None = None, keep: Collection[str] = ()) -> tvm.ir.transform.ModulePass:
    """What sums codes of one tensor::

        y = mean(dequantize(x));  y.q = quantize(y)      ->      y = mean(x)          a composite

    So for avg_pool2d, resize2d (linear), softmax. Refused: sums that may exceed int32, unusual coordinates of a resize.
    """
    folds = {"avg_pool": avg_pool, "mean": mean, "resize": resize, "softmax": softmax}
    return fold_pass("FoldPooling", folds, layers, keep, fold_pooling.__doc__)
