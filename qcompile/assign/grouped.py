"""Which layers have int4 weights by groups, and with which scales."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qcompile.assign.constants import constant_plans
from qcompile.calibrate.group_scales import group_scales
from qcompile.errors import QCompileError
from qcompile.passes.base import array
from qcompile.passes.chain import Chain
from qcompile.passes.group_weights import fitting_group, group_refusal, grouped_rows, quantize_groups
from qcompile.passes.weights import INT32_MAX, bias_scales, bias_vector, largest_sum, quantize_bias, weight_axis
from qcompile.plan import TensorPlan


def grouped_plans(chain: Chain, tensors: Mapping[str, TensorPlan], group: int) -> dict[str, TensorPlan] | str:
    """The plans of a layer's int4 "<layer>.weight" and its "<layer>.bias"; or why it cannot have such weights.

    tensors: plans of the activations. group: weights along the reduction, or along a row that is looked up, that share
    an integer scale, or fewer of them where that divides a convolution's channels.
    """
    group = fitting_group(chain, group)
    if (reason := group_refusal(chain, group)) is not None:
        return reason
    if chain.kind == "gather":
        plans = constant_plans(chain, tensors)
        return plans | {f"{chain.name}.weight": stored_groups(chain, group)} if isinstance(plans, dict) else plans
    x, weight = tensors[chain.inputs[0].name].affine, array(chain.weight)
    try:
        scale, steps = group_scales(grouped_rows(chain, weight), group, bias_vector(chain), x.scale)
    except QCompileError as error:
        raise QCompileError(error.reason, node=chain.name, remedy=error.remedy) from None
    codes = quantize_groups(weight, scale, steps, group, weight_axis(chain))
    total = largest_sum(codes, quantize_bias(chain, x, scale))
    if total > INT32_MAX:
        return f"its sums by groups may reach {total}, beyond int32"
    plans = {f"{chain.name}.weight": _int4(scale, steps, weight_axis(chain), group)}
    if chain.bias is not None:
        scales = tuple(map(float, bias_scales(chain, x, scale).astype(np.float32)))
        plans[f"{chain.name}.bias"] = TensorPlan(
            scales, (0,) * len(scales), "int32", 0, "derived", chain.inputs[0].name
        )
    return plans


def stored_groups(chain: Chain, group: int) -> TensorPlan:
    """The plan of an int4 table, or of a weight of a layer on floats, that ``group_refusal`` lets pass."""
    group, rows = fitting_group(chain, group), grouped_rows(chain, array(chain.weight))
    scale, steps = group_scales(rows, group, np.zeros(len(rows), np.float32), 1.0)
    return _int4(scale, steps, 0 if chain.kind == "gather" else weight_axis(chain), group)


def _int4(scale: np.ndarray, steps: np.ndarray, axis: int, group: int) -> TensorPlan:
    numbers = tuple(map(float, scale))
    return TensorPlan(numbers, (0,) * scale.size, "int4", axis, group=group, group_scale=steps.tobytes())
