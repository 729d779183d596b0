"""Reading an ONNX file into an ``OnnxGraph``, with one clear error for whatever may be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from qcompile.errors import QCompileError
from qcompile.frontend.onnx_graph import DEFAULT_DOMAINS, InputInfo, Node, OnnxGraph

PROTOBUF_LIMIT = 2**31 - 1  # bytes that a serialised message can have
LEFT_TO_THE_IMPORTER = ("Field 'shape' of 'type'", "No Op registered for")  # it infers the one and names the other
OLDEST_OPSET = 7  # before it, elementwise operators had no numpy broadcasting


def load_graph(source: str | Path | onnx.ModelProto) -> OnnxGraph:
    """The graph of an ONNX file (external data found beside it) or of a ``ModelProto``.

    Raises ``QCompileError`` if it is missing, truncated, not ONNX, refused by the ONNX checker, or of an opset that is
    not supported.
    """
    if isinstance(source, onnx.ModelProto):
        name, folder = source.graph.name or "model", ""
        model = source
        size, path = 0, None
    else:
        path = Path(source)
        name, folder = str(path), str(path.parent)
        model, size = _read(path)
    opsets = _opsets(model, name)
    _check(model, name, path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model, convert_version=True)
    graph = read_graph(model.graph, folder, name)
    graph.inputs = [_input(value, name) for value in model.graph.input if value.name not in graph.constants]
    graph.opsets, graph.source = opsets, name
    graph.source_bytes = size or sum(value.nbytes for value in graph.constants.values())
    return graph


def read_graph(proto: onnx.GraphProto, folder: str = "", where: str = "") -> OnnxGraph:
    """The graph (or subgraph) of a message, without its inputs; Constant nodes become constants."""
    constants = {t.name: _array(t, folder, where) for t in proto.initializer}
    for sparse in proto.sparse_initializer:
        constants[sparse.values.name] = _dense(sparse, folder, where)
    nodes = []
    for message in proto.node:
        node = _node(message, folder, where)
        if node.op_type == "Constant" and node.domain in DEFAULT_DOMAINS:
            constants[node.outputs[0]] = _constant(node)
        else:
            nodes.append(node)
    return OnnxGraph([], [value.name for value in proto.output], nodes, constants, {})


def _read(path: Path) -> tuple[onnx.ModelProto, int]:
    if path.is_dir():
        raise QCompileError("is a folder, not a file", node=str(path), remedy="give the .onnx file itself")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise QCompileError("no such file", node=str(path), remedy="check the path of the ONNX model") from None
    except OSError as error:
        raise QCompileError(
            f"cannot be read ({error.strerror})", node=str(path), remedy="check its permissions"
        ) from None
    if not data:
        raise QCompileError("the file is empty", node=str(path), remedy="export or copy the model again")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise QCompileError(
            "not an ONNX file, or a truncated one", node=str(path), remedy="export or copy the model again"
        ) from None
    if not model.HasField("graph") or not model.ir_version:
        raise QCompileError("not an ONNX file: it holds no graph", node=str(path), remedy="give an ONNX model")
    return model, len(data) + _external_bytes(model, path)


def _external_bytes(model: onnx.ModelProto, path: Path) -> int:
    """Size of the files that hold external data; complains about the first that is missing or too short."""
    ends: dict[str, int] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            info = {entry.key: entry.value for entry in tensor.external_data}
            location = info.get("location", "")
            file = path.parent / location
            if not file.is_file():
                raise QCompileError(
                    f"its external data {location!r} is missing",
                    node=f"{path}: {tensor.name}",
                    remedy=f"put {location!r} beside the model",
                )
            end = int(info.get("offset", 0)) + int(info.get("length", 0))
            if end > file.stat().st_size:
                raise QCompileError(
                    f"its external data {location!r} is truncated",
                    node=f"{path}: {tensor.name}",
                    remedy="copy the data file again",
                )
            ends[location] = file.stat().st_size
    return sum(ends.values())


def _check(model: onnx.ModelProto, name: str, path: Path | None) -> None:
    """Runs the ONNX checker; by path where there is one, since a message over 2 GB cannot be given to it."""
    try:
        if path is not None:
            onnx.checker.check_model(str(path))
        elif not _external(model) and model.ByteSize() < PROTOBUF_LIMIT:
            onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = str(error).split("==> Context:")[0].strip()
        if reason.startswith(LEFT_TO_THE_IMPORTER):
            return
        raise QCompileError(
            f"the ONNX checker refuses it: {reason}", node=name, remedy="export the model again, or mend it"
        ) from None


def _external(model: onnx.ModelProto) -> bool:
    return any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)


def _opsets(model: onnx.ModelProto, name: str) -> dict[str, int]:
    """Domain -> version."""
    if not model.HasField("graph"):
        raise QCompileError("the model has no graph", node=name, remedy="give an ONNX model")
    opsets = {("" if o.domain in DEFAULT_DOMAINS else o.domain): o.version for o in model.opset_import}
    newest = onnx.defs.onnx_opset_version()
    version = opsets.get("", newest)
    if not OLDEST_OPSET <= version <= newest:
        raise QCompileError(
            f"opset {version} is not supported",
            node=name,
            remedy=f"convert it to an opset from {OLDEST_OPSET} to {newest}: onnx.version_converter.convert_version",
        )
    return opsets


def _node(message: onnx.NodeProto, folder: str, where: str) -> Node:
    name = message.name or next((out for out in message.output if out), message.op_type)
    attributes = {a.name: _attribute(a, folder, where) for a in message.attribute}
    return Node(message.op_type, tuple(message.input), tuple(message.output), name, attributes, message.domain)


def _attribute(attribute: onnx.AttributeProto, folder: str, where: str) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _array(value, folder, where)
    if isinstance(value, onnx.SparseTensorProto):
        return _dense(value, folder, where)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.GraphProto | int | float):
        return value
    return [v.decode() if isinstance(v, bytes) else v for v in value]


def _constant(node: Node) -> np.ndarray:
    (kind, value), *_ = node.attributes.items()
    dtype = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return np.asarray(value, dtype.get(kind))


def _array(tensor: onnx.TensorProto, folder: str, where: str) -> np.ndarray:
    try:
        return numpy_helper.to_array(tensor, folder)
    except (ValueError, TypeError, OSError, onnx.checker.ValidationError) as error:
        raise QCompileError(
            f"the tensor cannot be read ({error})", node=f"{where}: {tensor.name}", remedy="export the model again"
        ) from None


def _dense(sparse: onnx.SparseTensorProto, folder: str, where: str) -> np.ndarray:
    values, indices = _array(sparse.values, folder, where), _array(sparse.indices, folder, where)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def _input(value: onnx.ValueInfoProto, where: str) -> InputInfo:
    if not value.type.HasField("tensor_type"):
        raise QCompileError(
            "is a sequence, map or optional", node=f"{where}: input {value.name}", remedy="only tensors can be inputs"
        )
    tensor = value.type.tensor_type
    if tensor.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        raise QCompileError(
            "is not a tensor of numbers",
            node=f"{where}: input {value.name}",
            remedy="only numbers can be computed with",
        )
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if not tensor.HasField("shape"):
        return InputInfo(value.name, dtype, None)
    dims = tuple(d.dim_value if d.dim_value > 0 else _symbol(d.dim_param) for d in tensor.shape.dim)
    return InputInfo(value.name, dtype, dims)


def _symbol(name: str) -> str | None:
    """The name of an unknown extent; exporters write "?" and the like for extents that need not be equal."""
    return name if any(character.isalnum() for character in name) else None
