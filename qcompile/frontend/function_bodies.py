"""Operators that the ONNX standard defines by others: Attention, RotaryEmbedding, Celu, GroupNormalization, ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import onnx.inliner
from onnx import helper

from qcompile.frontend.fold import node_message
from qcompile.frontend.load import read_graph
from qcompile.frontend.onnx_graph import DEFAULT_DOMAINS, Node, OnnxGraph

Type = tuple[str, tuple[int, ...]]  # dtype, shape
_OWN = "qcompile.body"  # domain of the definition, while it is inlined


def function_body(node: Node, types: Sequence[Type | None], opset: int) -> OnnxGraph | None:
    """What ``node`` means, between tensors of its own names; None if the standard does not define it by others.

    types: of its inputs, None for an absent one; definitions depend on them. Other names start with that of the node's
    first output, so that they are the node's own.
    """
    outputs = [name for name in node.outputs if name]
    message = node_message(node)
    function = _definition(message, types, opset) if outputs and node.domain in DEFAULT_DOMAINS else None
    if function is None:
        return None
    message.domain = function.domain = _OWN
    declared = {
        name: helper.make_value_info(name, _type_proto(kind))
        for name, kind in zip(node.inputs, types, strict=True)
        if kind is not None
    }
    graph = helper.make_graph(
        [message], "body", list(declared.values()), [onnx.ValueInfoProto(name=o) for o in outputs]
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(_OWN, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, functions=[function])
    body = read_graph(onnx.inliner.inline_local_functions(proto).graph, where=node.name)
    if any(inner.op_type == node.op_type for inner in body.nodes):
        return None
    own = {*declared, *node.outputs, ""}
    names = {name: f"{outputs[0]}~{name}" for name in _names(body) if name not in own}
    body.constants = {names.get(name, name): value for name, value in body.constants.items()}
    body.nodes = [
        replace(
            inner,
            name=node.name,
            inputs=tuple(names.get(n, n) for n in inner.inputs),
            outputs=tuple(names.get(n, n) for n in inner.outputs),
        )
        for inner in body.nodes
    ]
    return body


def _definition(message: onnx.NodeProto, types: Sequence[Type | None], opset: int) -> onnx.FunctionProto | None:
    """The newest definition up to ``opset``; attributes that ``message`` leaves out are added to it."""
    try:
        schema = onnx.defs.get_schema(message.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    by_types = schema.has_context_dependent_function
    versions = schema.context_dependent_function_opset_versions if by_types else schema.function_opset_versions
    version = max((v for v in versions if v <= opset), default=None)
    if version is None:
        return None
    given = {attribute.name for attribute in message.attribute}
    defaults = [a.default_value for a in schema.attributes.values() if a.name not in given and a.default_value.name]
    message.attribute.extend(defaults)
    if by_types:
        kinds = [_type_proto(kind).SerializeToString() for kind in types]
        data = schema.get_context_dependent_function_with_opset_version(version, message.SerializeToString(), kinds)
    else:
        data = schema.get_function_with_opset_version(version)
    return onnx.FunctionProto.FromString(data)


def _type_proto(kind: Type | None) -> onnx.TypeProto:
    if kind is None:
        return onnx.TypeProto()
    dtype = np.dtype(getattr(ml_dtypes, kind[0], kind[0]))
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(dtype), kind[1])


def _names(graph: OnnxGraph) -> set[str]:
    tensors = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
    return tensors | set(graph.constants)
