"""Whatever has no converter of its own here goes through the converters of TVM's importer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from qcompile.frontend.context import NodeContext, Result
from qcompile.frontend.onnx_graph import DEFAULT_DOMAINS, MICROSOFT, Node

MICROSOFT_OPERATORS = {"Gelu", "FastGelu", "BiasGelu", "SkipLayerNormalization"}
REFUSED = {  # in TVM's table, but their results have no static shape or are no tensors
    *("NonZero", "Unique", "Compress", "NonMaxSuppression", "AllClassNMS", "Optional", "OptionalHasElement"),
    *("OptionalGetElement", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
    *("SequenceLength", "ConcatFromSequence", "SplitToSequence", "SequenceAt"),
}


def tvm_converter(node: Node) -> Callable[[NodeContext], Result] | None:
    """The converter for ``node``, None if TVM has none."""
    known = node.domain in DEFAULT_DOMAINS or (node.domain == MICROSOFT and node.op_type in MICROSOFT_OPERATORS)
    table = onnx_frontend._get_convert_map()
    return _convert if known and node.op_type in table and node.op_type not in REFUSED else None


def _convert(ctx: NodeContext) -> Result:
    if ctx.node.op_type == "RoiAlign" and ctx.get("mode") == "max":
        raise ctx.unsupported("the largest of a region's samples")  # TVM weights them in another order than ONNX
    converter = onnx_frontend._get_convert_map()[ctx.node.op_type]
    opset = ctx.opset if ctx.node.domain in DEFAULT_DOMAINS else 1
    inputs = onnx_frontend.onnx_input(None if v is None else ctx.as_expr(v) for v in ctx.inputs)
    attributes = {key: _attribute(value) for key, value in ctx.node.attributes.items()}
    attributes["tvm_custom"] = {"name": ctx.node.name, "num_outputs": len(ctx.node.outputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = converter.get_converter(opset)(ctx.emit, inputs, attributes, [{}, {}])
    if isinstance(result, relax.Tuple):
        return list(result.fields)
    result = result if len(ctx.node.outputs) == 1 else ctx.emit.normalize(result)
    if len(ctx.node.outputs) > 1:
        return [relax.TupleGetItem(result, i) for i in range(len(ctx.node.outputs))]
    return result


def _attribute(value: Any) -> Any:
    """As TVM's converters expect it: bytes, tuples and messages."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, np.ndarray):
        return onnx.numpy_helper.from_array(value)
    if isinstance(value, list):
        return tuple(v.encode() if isinstance(v, str) else v for v in value)
    return value
