"""``plan_uniform``: one precision wherever it can be had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qcompile import graph
from qcompile.assign.formats import choose_formats
from qcompile.assign.scales import activation_plans
from qcompile.assign.structure import Structure
from qcompile.calibrate.methods import PERCENTILE, tensor_range
from qcompile.calibrate.scales import symmetric_weight_scales
from qcompile.calibrate.stats import TensorStats
from qcompile.errors import QCompileError, nearest
from qcompile.model import Model
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
from qcompile.plan import LayerPlan, QuantPlan, TensorPlan

if TYPE_CHECKING:
    from qcompile.targets.target import Target

PRECISIONS = ("int8", "fp32")


def plan_uniform(
    model: Model,
    stats: TensorStats | None,
    precision: str = "int8",
    target: Target | None = None,
    exclude: Sequence[str] = (),
    integer_inputs: Sequence[str] = (),
    integer_outputs: Sequence[str] = (),
    method: str = "minmax",
    percent: float = PERCENTILE,
) -> QuantPlan:
    """A plan with every layer in ``precision`` that can be.

    Parameters
    ----------
    model: tidied.
    stats: of the same model's tensors; may be None for "fp32".
    precision: "int8" (activations uint8 per tensor, weights int8 by output channel) or "fp32".
    target: the machine; every target so far takes the same plan.
    exclude: ONNX node names, layer (tensor) names or operator types that stay in float32.
    integer_inputs, integer_outputs: names of model inputs and outputs that are given and returned as codes.
    method: how a range is chosen from the statistics. percent: for the method "percentile".

    Raises
    ------
    QCompileError: for a name that the model does not have, and a tensor that ``stats`` lacks.
    """
    if precision not in PRECISIONS:
        raise QCompileError(f"unknown precision '{precision}'", remedy=nearest(precision, PRECISIONS))
    structure = Structure(graph.read(model.module))
    excluded = _excluded(model, structure, exclude)
    _check_names("input", integer_inputs, [spec.name for spec in model.inputs if spec.dtype == "float32"])
    outputs = [out.name for out in structure.outputs if hasattr(out, "name")]
    _check_names("output", integer_outputs, [spec.name for spec in model.outputs if spec.name in outputs])
    if precision == "fp32":
        layers = {chain.name: LayerPlan("fp32", "asked for") for chain in structure.chains}
        return QuantPlan(layers=layers, method=method)

    formats = choose_formats(structure, excluded, integer_inputs, integer_outputs)
    ranges: dict[str, tuple[float, float]] = {}

    def range_of(name: str) -> tuple[float, float]:
        if name not in ranges:
            if stats is None or name not in stats.records:
                raise QCompileError("no statistics of this tensor", node=name, remedy="calibrate this model again")
            try:
                ranges[name] = tensor_range(stats.records[name], method, percent)
            except QCompileError as error:
                raise QCompileError(error.reason, node=name, remedy=error.remedy) from None
        return ranges[name]

    tensors = activation_plans(structure, formats, range_of, integer_inputs, integer_outputs)
    layers = dict(formats)
    for chain in structure.chains:
        if layers[chain.name].format == "int8":
            constants = _constants(chain, tensors)
            if isinstance(constants, str):
                layers[chain.name] = LayerPlan("fp32", constants)
            else:
                tensors.update(constants)
    return QuantPlan(tensors, layers, tuple(integer_inputs), tuple(integer_outputs), method)


def _constants(chain: Chain, tensors: dict[str, TensorPlan]) -> dict[str, TensorPlan] | str:
    """The plans of a layer's weight and bias, or why it cannot be in integers after all."""
    if chain.kind == "binary":
        plans = {}
        for operand in chain.inputs:
            values = array(operand)
            if values is not None:
                plans[f"{chain.name}.weight"] = _own(_constant_affine(values))
        return plans
    if chain.kind not in WEIGHTED:
        return {}
    x = tensors[chain.inputs[0].name].affine
    weight, axis, groups = array(chain.weight), weight_axis(chain), groups_of_scales(chain)
    bias = bias_vector(chain)
    # Groups of a transposed convolution share their scales, so the largest bias of them counts.
    scale = symmetric_weight_scales(weight, np.abs(bias.reshape(groups, -1)).max(axis=0), x.scale, axis)
    codes = quantize_bias(chain, x, scale)
    total = largest_sum(quantize_weight(weight, scale, axis), codes, groups)
    if total > INT32_MAX:
        return f"its sums may reach {total}, beyond int32"
    zeros = (0,) * scale.size
    plans = {f"{chain.name}.weight": TensorPlan(tuple(map(float, scale)), zeros, "int8", axis)}
    if chain.bias is not None:
        scales = bias_scales(chain, x, scale).astype(np.float32)
        zeros = (0,) * scales.size
        source = chain.inputs[0].name
        plans[f"{chain.name}.bias"] = TensorPlan(tuple(map(float, scales)), zeros, "int32", 0, "derived", source)
    return plans


def _constant_affine(values: np.ndarray) -> Affine:
    from qcompile.calibrate.scales import affine

    return affine(float(values.min(initial=0)), float(values.max(initial=0)))


def _own(q: Affine) -> TensorPlan:
    return TensorPlan((q.scale,), (q.zero_point,), q.dtype)


def _excluded(model: Model, structure: Structure, names: Sequence[str]) -> set[str]:
    """Names of the chains that the user wants in float."""
    nodes = {layer.node for layer in model.layers.values()}
    kinds = {layer.op_type for layer in model.layers.values()}
    tensors = {var.name for var in structure.definitions}
    _check_names("node, layer or operator type", names, sorted(nodes | kinds | tensors | set(model.layers)))
    wanted, result = set(names), set()
    for chain in structure.chains:
        for var in chain.members:
            layer = model.layers.get(var.name) or model.layers.get(var.name.partition("~")[0])
            titles = {var.name} | ({layer.node, layer.op_type} if layer else set())
            if titles & wanted:
                result.add(chain.name)
    return result


def _check_names(what: str, names: Sequence[str], valid: Sequence[str]) -> None:
    for name in names:
        if name not in valid:
            raise QCompileError(f"no {what} of this name", node=name, remedy=nearest(name, valid))
