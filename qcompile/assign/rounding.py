"""``learn_rounding``: the codes of weights by what layers compute on calibration data, instead of the nearest ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from qcompile import graph
from qcompile.calibrate.layer_inputs import LayerInputs, from_rows, weight_rows, why_no_rows
from qcompile.calibrate.learn_codes import error, learn_codes, moments
from qcompile.formats import format_of
from qcompile.model import Model
from qcompile.ops import Affine
from qcompile.passes.base import array, refused, shape_of
from qcompile.passes.chain import WEIGHTED, Chain, find_chains
from qcompile.passes.group_weights import QMAX, QMIN, of_rows, quantize_groups
from qcompile.passes.weights import (
    INT32_MAX,
    groups_of_scales,
    largest_sum,
    quantize_bias,
    quantize_weight,
    weight_axis,
)
from qcompile.plan import QuantPlan, TensorPlan, pack_moves
from qcompile.reference.arithmetic import dequantize, quantize

HELD_BACK = 4  # of so many samples, one decides whether what the others taught is kept


def learn_rounding(
    model: Model,
    inputs: Mapping[str, LayerInputs],
    plan: QuantPlan,
    centered: bool = True,
    progress: Callable[[int], None] = lambda layers: None,
) -> QuantPlan:
    """``plan`` with the moves of the codes of each layer in "<layer>.weight", in place of those that it may have.

    inputs: rows of what layers of ``model``, the plan's, read. centered: whether biases will make up for what the means
    of outputs are off by (``correct_biases``); then only what varies counts.
    A layer keeps its nearest codes where that leaves less error on samples held back, where it has no rows, and where
    its sums might leave int32; the log "qcompile.passes" says why.
    """
    tensors = {name: replace(tensor, moves=b"") for name, tensor in plan.tensors.items()}
    done = 0
    for chain in find_chains(graph.read(model.module)):
        name = f"{chain.name}.weight"
        layer = plan.layers.get(chain.name)
        if chain.kind not in WEIGHTED or layer is None or not format_of(layer.format).integer_weights:
            continue
        if name not in tensors:
            continue
        reason = why_no_rows(chain)
        if reason is None and chain.name not in inputs:
            reason = f"no rows of {chain.inputs[0].name}"
        q = tensors[chain.inputs[0].name].affine if layer.codes else None
        moves = reason or _moves(chain, inputs[chain.name], tensors[name], q, centered)
        if isinstance(moves, str):
            refused("learn_rounding", f"{chain.name}: {moves}")
        elif moves.any():
            tensors[name] = replace(tensors[name], moves=pack_moves(moves))
        done += 1
        progress(done)
    return replace(plan, tensors=tensors)


def _moves(chain: Chain, inputs: LayerInputs, plan: TensorPlan, q: Affine | None, centered: bool) -> np.ndarray | str:
    """What to add to each nearest code, int8 of the weight's shape; or why nothing. q: of what the layer reads, if that
    is codes.
    """
    coded = inputs.rows if q is None else dequantize(quantize(inputs.rows, q), q)
    held = inputs.sample % HELD_BACK == HELD_BACK - 1
    if not held.any() or held.all():
        return "too few samples to hold some back"
    weight = array(chain.weight)
    rows, steps = (weight_rows(chain, x) for x in (weight.astype(np.float64), _steps(chain, plan)))
    bounds = (QMIN, QMAX) if plan.group else (-127, 127)
    learnt = learn_codes(rows, steps, bounds, *moments(rows, inputs.rows[:, ~held], coded[:, ~held], centered))
    check = (inputs.rows[:, held], coded[:, held], centered)
    nearest = np.clip(np.rint(rows / steps), *bounds)
    before, after = (error(rows, codes * steps - rows, *check) for codes in (nearest, nearest + learnt))
    if not after < before:
        return "on samples held back the nearest codes leave less error"
    moves = from_rows(chain, learnt)
    if q is None:
        return moves
    scale, axis = np.array(plan.scale, np.float32), weight_axis(chain)
    if plan.group:
        quantized = quantize_groups(weight, scale, _group_scale(plan, weight.shape[axis]), plan.group, axis, moves)
    else:
        quantized = quantize_weight(weight, scale, axis, moves)
    total = largest_sum(quantized, quantize_bias(chain, q, scale), groups_of_scales(chain))
    return moves if total <= INT32_MAX else f"its sums may reach {total}, beyond int32"


def _group_scale(plan: TensorPlan, outputs: int) -> np.ndarray:
    """(outputs, groups) uint8."""
    return np.frombuffer(plan.group_scale, np.uint8).reshape(outputs, -1)


def _steps(chain: Chain, plan: TensorPlan) -> np.ndarray:
    """The step of each weight's codes, float64 of the weight's shape."""
    axis, shape = weight_axis(chain), shape_of(chain.weight)
    scale = np.broadcast_to(np.array(plan.scale, np.float64), (shape[axis],))
    if plan.group:
        groups = _group_scale(plan, shape[axis])
        return of_rows(scale[:, None] * np.repeat(groups, plan.group, axis=1), shape, axis)
    return np.broadcast_to(scale.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)
