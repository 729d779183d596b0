"""``import_onnx``: an ONNX model as a float ``Model``, with its names kept and its constants folded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from tvm import relax

from qcompile.errors import QCompileError
from qcompile.frontend import (
    op_conv,
    op_gather,
    op_math,
    op_norm,
    op_quantized,
    op_recurrent,
    op_reduce,
    op_resize,
    op_shape,
    op_signal,
)
from qcompile.frontend.context import NodeContext, Result, Value
from qcompile.frontend.control_flow import write_out
from qcompile.frontend.dynamic_quantization import float_products
from qcompile.frontend.emit import Emitter
from qcompile.frontend.fold import evaluate
from qcompile.frontend.function_bodies import function_body
from qcompile.frontend.input_shapes import resolve_inputs
from qcompile.frontend.load import load_graph
from qcompile.frontend.onnx_graph import DEFAULT_DOMAINS, MICROSOFT, Node, OnnxGraph, subgraph_reads
from qcompile.frontend.op_tvm import MICROSOFT_OPERATORS, tvm_converter
from qcompile.frontend.output_names import name_after_outputs, rename_plan
from qcompile.frontend.strip_quantization import strip_quantization
from qcompile.model import Model, TensorSpec
from qcompile.plan import QuantPlan

CONVERTERS: dict[str, Callable[[NodeContext], Result]] = {
    **op_conv.CONVERTERS,
    **op_math.CONVERTERS,
    **op_norm.CONVERTERS,
    **op_shape.CONVERTERS,
    **op_gather.CONVERTERS,
    **op_reduce.CONVERTERS,
    **op_resize.CONVERTERS,
    **op_quantized.CONVERTERS,
    **op_recurrent.CONVERTERS,
    **op_signal.CONVERTERS,
}
DATA_DEPENDENT = {"NonZero", "Unique", "Compress", "NonMaxSuppression"}


def import_onnx(source: str | Path | onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """Reads a float or pre-quantized ONNX model.

    ``input_shapes`` fixes symbolic dimensions; a symbolic batch (first dimension) that nothing fixes becomes 1, with a
    note. The scales of a pre-quantized model are in ``Model.imported_plan``.
    Raises ``QCompileError`` naming the file, input or node for all that cannot be imported.
    """
    graph = load_graph(source)
    specs, notes = resolve_inputs(graph.inputs, input_shapes)
    plan = _to_float(graph)
    dtypes = {info.name: info.dtype for info in graph.inputs}
    specs = tuple(replace(spec, dtype=dtypes[spec.name]) for spec in specs)  # codes became float inputs
    return replace(_Importer(graph, specs).model(notes), imported_plan=plan)


def _to_float(graph: OnnxGraph) -> QuantPlan | None:
    """Leaves ``graph`` without dead and quantized operators; the plan of a pre-quantized model."""
    graph.drop_dead_nodes()
    weights = float_products(graph)
    plan = strip_quantization(graph)
    if weights:
        plan = replace(plan or QuantPlan(method="imported"), tensors={**(plan.tensors if plan else {}), **weights})
    renamed = name_after_outputs(graph)
    graph.drop_dead_nodes()
    return None if plan is None else rename_plan(plan, renamed)


class _Importer:
    def __init__(self, graph: OnnxGraph, specs: tuple[TensorSpec, ...]):
        self.graph, self.specs = graph, specs
        params = [relax.Var(s.name, relax.TensorType(s.shape, s.dtype)) for s in specs]
        tensors = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
        self.emit = Emitter(params, tensors | {s.name for s in specs})
        self.values: dict[str, Value] = dict(graph.constants)
        self.values.update((s.name, p) for s, p in zip(specs, params, strict=True))
        self._read = _read_in(graph)
        self.notes: list[str] = []
        self._constants: dict[int, tuple[np.ndarray, relax.Expr]] = {}

    @property
    def opset(self) -> int:
        return self.graph.opset

    def model(self, notes: tuple[str, ...]) -> Model:
        for node in self.graph.nodes:
            self.convert(node)
        outputs = [self._expr(self.value(name, f"output {name}")) for name in self.graph.outputs]
        specs = tuple(
            TensorSpec(name, tuple(int(d) for d in value.ty.shape.values), str(value.ty.dtype))
            for name, value in zip(self.graph.outputs, outputs, strict=True)
        )
        return Model(
            module=self.emit.main.module(outputs),
            inputs=self.specs,
            outputs=specs,
            layers=self.emit.layers,
            source=self.graph.source,
            source_bytes=self.graph.source_bytes,
            notes=(*notes, *self.notes),
        )

    def value(self, name: str, where: str) -> Value:
        if name not in self.values:
            raise QCompileError(
                f"nothing computes its input {name!r}", node=where, remedy="mend or re-export the model"
            )
        return self.values[name]

    def _expr(self, value: Value) -> relax.Expr:
        if not isinstance(value, np.ndarray):
            return value
        if id(value) not in self._constants:  # a shared weight stays one constant
            self._constants[id(value)] = (value, relax.const(np.asarray(value, order="C"), str(value.dtype)))
        return self._constants[id(value)][1]

    def convert(self, node: Node) -> None:
        inputs = tuple(self.value(name, node.label) if name else None for name in node.inputs)
        if write_out(node, self):
            return
        if all(v is None or isinstance(v, np.ndarray) for v in inputs):
            folded = evaluate(node, inputs, self.opset)
            if folded is not None:
                self.values.update(zip(node.outputs, folded, strict=True))
                return
        wanted = tuple(name in self._read for name in node.outputs)
        if _by_definition(node, wanted):
            body = function_body(node, [_type(v) for v in inputs], self.opset)
            if body is not None:
                self.inline(body)
                return
        converter = _converter(node)
        self.emit.begin(node)
        ctx = NodeContext(node, inputs, wanted, self.opset, self.emit, self._expr)
        try:
            result = converter(ctx)
            results = result if isinstance(result, list) else [result]
            for name, value, used in zip(node.outputs, results, wanted, strict=False):
                if name and used:
                    self.values[name] = value if isinstance(value, np.ndarray) else self.emit.finish(value, name)
        except QCompileError:
            raise
        except Exception as error:
            raise QCompileError(
                f"cannot be imported with inputs of {_shapes(ctx)}: {_brief(error)}",
                node=node.label,
                remedy="check its attributes and input shapes, or cut the model before this node",
            ) from error

    def inline(self, graph: OnnxGraph) -> None:
        """The nodes of a subgraph, between tensors of the graph around it."""
        self.values.update(graph.constants)
        self._read |= _read_in(graph)
        for inner in graph.nodes:
            self.convert(inner)


def _read_in(graph: OnnxGraph) -> set[str]:
    """What nodes of a graph, branches among them, and those who asked for it read."""
    inputs = {name for node in graph.nodes for name in node.inputs}
    return inputs.union(graph.outputs, *(subgraph_reads(node) for node in graph.nodes))


def _by_definition(node: Node, wanted: Sequence[bool]) -> bool:
    """Whether the standard's definition of an operator is to be imported in its place, if there is one."""
    if node.domain not in DEFAULT_DOMAINS:
        return False
    if node.op_type == "LayerNormalization":
        return any(wanted[1:])
    return node.op_type not in CONVERTERS and (node.op_type == "Attention" or tvm_converter(node) is None)


def _type(value: Value | None) -> tuple[str, tuple[int, ...]] | None:
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape
    return str(value.ty.dtype), tuple(int(d) for d in value.ty.shape.values)


def _converter(node: Node) -> Callable[[NodeContext], Result]:
    """How to convert ``node``; an error that says why where there is no way."""
    if node.domain in DEFAULT_DOMAINS and node.op_type in CONVERTERS:
        return CONVERTERS[node.op_type]
    converter = tvm_converter(node)
    if converter is not None:
        return converter
    if node.op_type in DATA_DEPENDENT:
        raise QCompileError(
            "the shape of its result depends on the data",
            node=node.label,
            remedy="qcompile needs static shapes: cut the model before this node",
        )
    if node.op_type == "SequenceMap":
        raise QCompileError(
            "control flow is not supported", node=node.label, remedy="export the model with the loop unrolled"
        )
    if node.domain in DEFAULT_DOMAINS:
        raise QCompileError(
            f"operator {node.op_type} is not supported",
            node=node.label,
            remedy="cut the model before this node, or export it without",
        )
    known = f"of {MICROSOFT}: {', '.join(sorted(MICROSOFT_OPERATORS))}" if node.domain == MICROSOFT else "ONNX only"
    raise QCompileError(
        f"operator {node.op_type} of domain {node.domain} is not supported",
        node=node.label,
        remedy=f"export the model with standard operators (known: {known})",
    )


def _shapes(ctx: NodeContext) -> str:
    return ", ".join("x".join(map(str, ctx.shape(i))) or "no axes" for i in range(len(ctx.inputs)) if ctx.has(i))


def _brief(error: Exception) -> str:
    """The line of a TVM error that says what is wrong, without the stack and the spelling of IR."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("File ", "at ", "Traceback", "^", "Stack", "from "))]
    text = lines[-1] if lines else type(error).__name__
    text = re.sub(r'ir\.Op\(.*?name="([^"]*)".*?support_level=\d+\)', r"\1", text)
    text = re.sub(
        r"T\.int64\((\d+)\)", r"\1", re.sub(r"# Metadata omitted\..*?script\(\) method to show it\.", "", text)
    )
    text = re.sub(r".* has shape R\.shape\(.*?\)\. ", "", text)
    return text.removeprefix("InternalError:").removeprefix("Check failed:").strip().rstrip(".")[:300]
