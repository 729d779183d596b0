"""Which layers have int4 weights by groups, and with which scales."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qcompile.assign.constants import constant_plans
from qcompile.calibrate.group_scales import group_scales
from qcompile.errors import QCompileError
from qcompile.passes.base import array
from qcompile.passes.chain import Chain
from qcompile.passes.group_weights import group_refusal, grouped_rows, quantize_groups
from qcompile.passes.weights import INT32_MAX, bias_scales, bias_vector, largest_sum, quantize_bias
from qcompile.plan import TensorPlan


def grouped_plans(chain: Chain, tensors: Mapping[str, TensorPlan], group: int) -> dict[str, TensorPlan] | str:
    """The plans of a layer's int4 "<layer>.weight" and its "<layer>.bias"; or why it cannot have such weights.

    tensors: plans of the activations. group: weights along the reduction, or along a row that is looked up, that share
    an integer scale.
    """
    if (reason := group_refusal(chain, group)) is not None:
        return reason
    if chain.kind == "gather":
        plans = constant_plans(chain, tensors)
        table = array(chain.weight)
        scale, steps = group_scales(table, group, np.zeros(len(table), np.float32), 1.0)
        return plans | {f"{chain.name}.weight": _int4(scale, steps, 0, group)} if isinstance(plans, dict) else plans
    x, weight = tensors[chain.inputs[0].name].affine, array(chain.weight)
    try:
        scale, steps = group_scales(grouped_rows(chain, weight), group, bias_vector(chain), x.scale)
    except QCompileError as error:
        raise QCompileError(error.reason, node=chain.name, remedy=error.remedy) from None
    total = largest_sum(quantize_groups(weight, scale, steps, group), quantize_bias(chain, x, scale))
    if total > INT32_MAX:
        return f"its sums by groups may reach {total}, beyond int32"
    plans = {f"{chain.name}.weight": _int4(scale, steps, 1, group)}
    if chain.bias is not None:
        scales = tuple(map(float, bias_scales(chain, x, scale).astype(np.float32)))
        plans[f"{chain.name}.bias"] = TensorPlan(
            scales, (0,) * len(scales), "int32", 0, "derived", chain.inputs[0].name
        )
    return plans


def _int4(scale: np.ndarray, steps: np.ndarray, axis: int, group: int) -> TensorPlan:
    numbers = tuple(map(float, scale))
    return TensorPlan(numbers, (0,) * scale.size, "int4", axis, group=group, group_scale=steps.tobytes())
