"""The plans of a layer's constants: int8 weights by output channel, int32 bias, codes of a constant operand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qcompile.calibrate.scales import affine, symmetric_weight_scales
from qcompile.errors import QCompileError
from qcompile.ops import Affine
from qcompile.passes.base import array
from qcompile.passes.chain import WEIGHTED, Chain
from qcompile.passes.weights import (
    INT32_MAX,
    bias_scales,
    bias_vector,
    groups_of_scales,
    largest_sum,
    quantize_bias,
    quantize_weight,
    weight_axis,
)
from qcompile.plan import TensorPlan


def constant_plans(
    chain: Chain, tensors: Mapping[str, TensorPlan], scale: np.ndarray | None = None
) -> dict[str, TensorPlan] | str:
    """The plans of a layer's "<layer>.weight" and "<layer>.bias"; or why it cannot be in integers after all.

    tensors: plans of the activations. scale: of the weight, (channels,) float32; None for the weight's own.
    """
    if chain.kind == "binary":
        return {f"{chain.name}.weight": _own(_range(array(x))) for x in chain.inputs if array(x) is not None}
    if chain.kind == "gather":
        tables = {"weight": chain.weight, "bias": chain.bias}
        return {f"{chain.name}.{what}": _table(array(x)) for what, x in tables.items() if x is not None}
    if chain.kind not in WEIGHTED:
        return {}
    x = tensors[chain.inputs[0].name].affine
    weight, axis, groups = array(chain.weight), weight_axis(chain), groups_of_scales(chain)
    kind = "own" if scale is None else "imported"
    if scale is None:
        # Groups of a transposed convolution share their scales, so the largest bias of them counts.
        bias = np.abs(bias_vector(chain).reshape(groups, -1)).max(axis=0)
        try:
            scale = symmetric_weight_scales(weight, bias, x.scale, axis)
        except QCompileError as error:
            raise QCompileError(error.reason, node=chain.name, remedy=error.remedy) from None
    total = largest_sum(quantize_weight(weight, scale, axis), quantize_bias(chain, x, scale), groups)
    if total > INT32_MAX:
        return f"its sums may reach {total}, beyond int32"
    plans = {f"{chain.name}.weight": TensorPlan(_numbers(scale), (0,) * scale.size, "int8", axis, kind)}
    if chain.bias is not None:
        scales = bias_scales(chain, x, scale).astype(np.float32)
        plans[f"{chain.name}.bias"] = TensorPlan(
            _numbers(scales), (0,) * scales.size, "int32", 0, "derived", chain.inputs[0].name
        )
    return plans


def _table(values: np.ndarray) -> TensorPlan:
    """Codes of a table of rows (..., R, D), each with a scale of its own."""
    scale = symmetric_weight_scales(values, axis=values.ndim - 2)
    return TensorPlan(_numbers(scale), (0,) * scale.size, "int8", values.ndim - 2)


def _range(values: np.ndarray) -> Affine:
    return affine(float(values.min(initial=0)), float(values.max(initial=0)))


def _own(q: Affine) -> TensorPlan:
    return TensorPlan((q.scale,), (q.zero_point,), q.dtype)


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))
