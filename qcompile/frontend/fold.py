"""Evaluation of nodes whose inputs are all constants, by the reference implementation of the onnx package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from qcompile.frontend.onnx_graph import DEFAULT_DOMAINS, Node

RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


def evaluate(node: Node, inputs: Sequence[np.ndarray | None], opset: int) -> tuple[np.ndarray, ...] | None:
    """Outputs of a standard operator on constants; None if it has no deterministic reference implementation."""
    if node.domain not in DEFAULT_DOMAINS or node.op_type in RANDOM:
        return None
    try:
        message = node_message(node)
        feeds = {name: value for name, value in zip(node.inputs, inputs, strict=True) if value is not None}
        declared = [onnx.helper.make_tensor_value_info(n, _code(v), v.shape) for n, v in feeds.items()]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
        graph = onnx.helper.make_graph([message], "fold", declared, outputs)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # whatever the reference cannot do is left to the compiled graph
        return None
    if not all(isinstance(r, np.ndarray | np.generic) for r in results):
        return None
    named = dict(zip((n for n in node.outputs if n), results, strict=True))
    return tuple(np.asarray(named[n]) if n else np.empty(0) for n in node.outputs)


def run_operator(
    op_type: str, inputs: Sequence[np.ndarray | None], opset: int, **attributes: object
) -> np.ndarray | None:
    """The first output of one operator applied to ``inputs``, None if it has no reference implementation."""
    names = tuple("" if value is None else f"input_{i}" for i, value in enumerate(inputs))
    results = evaluate(Node(op_type, names, ("result",), op_type, attributes), inputs, opset)
    return results[0] if results else None


def node_message(node: Node) -> onnx.NodeProto:
    attributes = {
        key: onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for key, value in node.attributes.items()
    }
    return onnx.helper.make_node(
        node.op_type, list(node.inputs), list(node.outputs), name=node.name, domain=node.domain, **attributes
    )


def _code(value: np.ndarray) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
