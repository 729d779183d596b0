"""How far a plan's rounding moves the weights of a layer."""

from __future__ import annotations

import numpy as np

from qcompile.passes.base import array
from qcompile.passes.chain import Chain
from qcompile.passes.group_weights import quantize_groups
from qcompile.passes.weights import quantize_weight, weight_axis
from qcompile.plan import QuantPlan


def weight_error(chain: Chain, plan: QuantPlan) -> float:
    """``||Q(W) - W||^2`` of a layer with a weight; 0 if the plan leaves it as it is."""
    planned = plan.tensors.get(f"{chain.name}.weight")
    if planned is None:
        return 0.0
    weight, scale = array(chain.weight), np.array(planned.scale, np.float32)
    if "float" in planned.dtype:
        return float(((weight.astype(planned.dtype).astype(np.float64) - weight) ** 2).sum())
    if planned.group:
        steps = np.frombuffer(planned.group_scale, np.uint8).reshape(scale.size, -1)
        rounded = quantize_groups(weight, scale, steps, planned.group)
    else:
        rounded = quantize_weight(weight, scale, weight_axis(chain))
    along = [1] * rounded.codes.ndim
    along[rounded.axis] = -1
    real = rounded.codes.astype(np.float64) * rounded.scale.reshape(along)
    return float(((real - weight) ** 2).sum())
