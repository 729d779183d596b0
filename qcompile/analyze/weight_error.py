"""How far a plan's rounding moves the weights of a layer."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile.formats import format_of
from qcompile.passes.base import array, shape_of
from qcompile.passes.chain import WEIGHTED, Chain
from qcompile.passes.group_weights import quantize_groups
from qcompile.passes.weights import quantize_weight, weight_axis
from qcompile.plan import QuantPlan, TensorPlan


def weight_error(chain: Chain, plan: QuantPlan) -> float:
    """``||Q(W) - W||^2`` of a layer with a weight, or of the tables of one that looks up rows; 0 for what stays."""
    if chain.kind == "gather":
        tables = {"weight": chain.weight, "bias": chain.bias}
        return sum(_table_error(x, plan.tensors.get(f"{chain.name}.{what}")) for what, x in tables.items())
    planned, layer = plan.tensors.get(f"{chain.name}.weight"), plan.layers.get(chain.name)
    if chain.kind not in WEIGHTED or layer is None or array(chain.weight) is None:
        return 0.0
    stored = format_of(layer.format).weights
    if "float" in stored:
        return _distance(array(chain.weight).astype(stored), array(chain.weight))
    return 0.0 if planned is None else _codes_error(chain.weight, planned, weight_axis(chain))


def _table_error(table: relax.Expr | None, planned: TensorPlan | None) -> float:
    """Of a table (..., R, D), which has scales by row."""
    if table is None or planned is None:
        return 0.0
    return _codes_error(table, planned, len(shape_of(table)) - 2)


def _codes_error(constant: relax.Expr, planned: TensorPlan, axis: int) -> float:
    weight, scale = array(constant), np.array(planned.scale, np.float32)
    moves = planned.rounding(weight.shape)
    if planned.group:
        steps = np.frombuffer(planned.group_scale, np.uint8).reshape(scale.size, -1)
        rounded = quantize_groups(weight, scale, steps, planned.group, axis, moves)
    else:
        rounded = quantize_weight(weight, scale, axis, moves)
    along = [1] * rounded.codes.ndim
    along[rounded.axis] = -1
    return _distance(rounded.codes.astype(np.float64) * rounded.scale.reshape(along), weight)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a.astype(np.float64) - b) ** 2).sum())
