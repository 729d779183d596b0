"""Dynamically quantized models (``onnxruntime.quantization.quantize_dynamic``): back to float products.

Before -> after::

    x -> DynamicQuantizeLinear -> q, s, z                                y = MatMul(x, (w - zw) * sw)
    y = Cast(MatMulInteger(q, w, z, zw)) * (s * sw)                      + TensorPlan "y.weight": sw, zw

ConvInteger alike. Activations are then quantized by calibration, like those of any float model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from qcompile.frontend.imported_scales import WHY
from qcompile.frontend.onnx_graph import Node, OnnxGraph
from qcompile.frontend.quant_params import Quant
from qcompile.plan import TensorPlan

FLOAT_OPERATORS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


@dataclass(frozen=True, slots=True)
class _Match:
    """product: the integer node. result: the Mul whose output it becomes. x: the float operand. scale: the weight's."""

    product: Node
    result: Node
    x: str
    scale: np.ndarray


def float_products(graph: OnnxGraph) -> dict[str, TensorPlan]:
    """Rewrites every match of the pattern in ``graph``; plan entries of the weights."""
    producers = {out: node for node in graph.nodes for out in node.outputs}
    users = graph.users()
    tensors: dict[str, TensorPlan] = {}
    replaced: dict[str, Node] = {}
    for node in graph.nodes:
        match = _match(node, graph, producers, users) if node.op_type in FLOAT_OPERATORS else None
        if match is not None:
            replaced[match.result.outputs[0]] = _rewrite(match, graph.constants, tensors)
    graph.nodes = [replaced.get(node.outputs[0], node) for node in graph.nodes]
    return tensors


def _match(node: Node, graph: OnnxGraph, producers: dict[str, Node], users: dict[str, list[Node]]) -> _Match | None:
    dynamic = producers.get(node.input(0))
    zero = node.input(3)
    if (
        dynamic is None
        or dynamic.op_type != "DynamicQuantizeLinear"
        or node.input(2) != dynamic.outputs[2]
        or node.input(1) not in graph.constants
        or (zero and zero not in graph.constants)
    ):
        return None
    cast = _only_user(node, users)
    if cast is None or cast.op_type != "Cast" or cast.get("to") != onnx.TensorProto.FLOAT:
        return None
    result = _only_user(cast, users)
    if result is None or result.op_type != "Mul":
        return None
    factor = producers.get(next((n for n in result.inputs if n != cast.outputs[0]), ""))
    if factor is None or factor.op_type != "Mul" or dynamic.outputs[1] not in factor.inputs:
        return None
    scale = next((n for n in factor.inputs if n != dynamic.outputs[1]), "")
    if scale not in graph.constants:
        return None
    return _Match(node, result, dynamic.inputs[0], graph.constants[scale])


def _only_user(node: Node, users: dict[str, list[Node]]) -> Node | None:
    readers = users.get(node.outputs[0], [])
    return readers[0] if len(readers) == 1 else None


def _rewrite(match: _Match, constants: dict[str, np.ndarray], tensors: dict[str, TensorPlan]) -> Node:
    node, out = match.product, match.result.outputs[0]
    codes, zero = constants[node.input(1)], constants.get(node.input(3))
    axis = 0 if node.op_type == "ConvInteger" else codes.ndim - 1
    quant = Quant.of(match.scale, zero, str(codes.dtype), axis, codes.ndim)
    weight = f"{out}~weight"
    constants[weight] = quant.dequantize(codes)
    entry = quant.as_weight().to_plan(WHY)
    if entry is not None:
        tensors[f"{out}.weight"] = entry
    return Node(FLOAT_OPERATORS[node.op_type], (match.x, weight), (out,), node.name, node.attributes)
