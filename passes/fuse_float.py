"""Layers that stay in float32 become composites too, so that they get kernels as good."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import tvm

from qcompile.passes.base import module_pass
from qcompile.passes.composite_elementwise import binary
from qcompile.passes.composite_pooling import avg_pool, mean
from qcompile.passes.composite_weighted import weighted
from qcompile.passes.fold_layer import Fold, float_layer, rewrite
from qcompile.passes.fold_weighted import KINDS


def fuse_float(
    layers: Mapping[str, str] | None = None, groups: Mapping[str, int] | None = None
) -> tvm.ir.transform.ModulePass:
    """The chains of the integer form, in float32::

        y = conv2d(x, w);  z = add(y, b);  a = relu(z)      ->      a = conv2d(x, w, b)      a composite, x is float32

    For convolutions, dense layers, sums and products of two tensors, average pooling and means.
    groups: as for ``fold_weighted``, of weights beside activations in float32.
    """
    fold = partial(weighted, groups=groups or {})
    folds: dict[str, Fold] = {**dict.fromkeys(KINDS, fold), "binary": binary, "avg_pool": avg_pool, "mean": mean}
    return module_pass(
        "FuseFloat", lambda module: rewrite(module, folds, layers or {}, "FuseFloat", float_layer), fuse_float.__doc__
    )
