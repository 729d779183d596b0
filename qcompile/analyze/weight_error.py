"""How far a plan's rounding moves the weights of a layer."""

from __future__ import annotations

import numpy as np

from qcompile.passes.base import array
from qcompile.passes.chain import WEIGHTED, Chain
from qcompile.passes.group_weights import quantize_groups
from qcompile.passes.weights import narrow_weight, quantize_weight, weight_axis
from qcompile.plan import QuantPlan, TensorPlan


def weight_error(chain: Chain, plan: QuantPlan) -> float:
    """``||Q(W) - W||^2`` of a layer with a weight, or of the tables of one that looks up rows; 0 for what stays."""
    constants = {"weight": chain.weight} if chain.kind in WEIGHTED else {}
    if chain.kind == "gather":
        constants = {"weight": chain.weight, "bias": chain.bias}
    planned = {what: plan.tensors.get(f"{chain.name}.{what}") for what in constants}
    return sum(_error(chain, array(x), planned[what]) for what, x in constants.items() if planned[what] is not None)


def _error(chain: Chain, weight: np.ndarray | None, planned: TensorPlan) -> float:
    if weight is None:
        return 0.0
    if planned.dtype in ("float16", "bfloat16"):
        return _distance(weight.astype(planned.dtype), weight)
    axis = weight.ndim - 2 if chain.kind == "gather" else weight_axis(chain)  # of a table (..., R, D): scales by row
    scale, moves = np.array(planned.scale, np.float32), planned.rounding(weight.shape)
    if "float8" in planned.dtype:
        rounded = narrow_weight(weight, scale, axis, planned.dtype)
    elif planned.group:
        steps = np.frombuffer(planned.group_scale, np.uint8).reshape(scale.size, -1)
        rounded = quantize_groups(weight, scale, steps, planned.group, axis, moves)
    else:
        rounded = quantize_weight(weight, scale, axis, moves)
    along = [1] * rounded.codes.ndim
    along[rounded.axis] = -1
    return _distance(rounded.codes.astype(np.float64) * rounded.scale.reshape(along), weight)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a.astype(np.float64) - b) ** 2).sum())
