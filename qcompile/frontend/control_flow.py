"""Control flow whose course shapes and constants decide: the branch of an If, the steps of a Loop or Scan written out.

::

    If(data, then: a, else: b)           ->   where(data, a, b)
    Loop(3, True, s, body: s -> s + x)   ->   s1 = s + x; s2 = s1 + x; s3 = s2 + x
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import onnx

from qcompile.errors import QCompileError
from qcompile.frontend.context import Value
from qcompile.frontend.load import read_graph
from qcompile.frontend.onnx_graph import DEFAULT_DOMAINS, Node, OnnxGraph, subgraph_reads

_MOST_NODES = 5000  # of all steps together: more take minutes to build
_UNKNOWN = "export the model without control flow, or make what decides about it a constant"


class Importer(Protocol):
    """What is imported so far, and how to go on."""

    values: dict[str, Value]
    notes: list[str]  # for the user

    @property
    def opset(self) -> int: ...
    def value(self, name: str, where: str) -> Value: ...
    def inline(self, graph: OnnxGraph) -> None: ...


def write_out(node: Node, importer: Importer) -> bool:
    """Imports what ``node`` comes to, if it is control flow; whether it was.

    Raises ``QCompileError`` where the data decides, or steps are too many.
    """
    kinds = {"If": _if, "Loop": _loop, "Scan": _scan}
    if node.domain not in DEFAULT_DOMAINS or node.op_type not in kinds:
        return False
    kinds[node.op_type](node, importer)
    return True


def _if(node: Node, importer: Importer) -> None:
    condition = importer.value(node.input(0), node.label)
    if not isinstance(condition, np.ndarray):
        _both(node, importer)
        return
    branch = read_graph(node.get("then_branch" if condition.any() else "else_branch"), where=node.name)
    importer.inline(branch)
    _define(node.outputs, [importer.value(name, node.label) for name in branch.outputs], importer)


def _both(node: Node, importer: Importer) -> None:
    """Results of both branches, one chosen; the cost of both, but nothing in a branch has another effect."""
    results: list[list[str]] = []
    for key in ("then_branch", "else_branch"):
        branch, prefix = read_graph(node.get(key), where=node.name), f"{_first(node)}~{key.partition('_')[0]}~"
        own = {*branch.constants, *(name for inner in branch.nodes for name in inner.outputs if name)}
        names = {name: prefix + name for name in own}
        outputs = [names.get(name, name) for name in branch.outputs]
        constants = {names[name]: value for name, value in branch.constants.items()}
        try:
            importer.inline(OnnxGraph([], outputs, [_renamed(inner, names) for inner in branch.nodes], constants, {}))
        except QCompileError as error:
            reason = f"its condition ({node.input(0)}) is computed from the data, and its {key} cannot be imported"
            raise QCompileError(f"{reason} ({error.node}: {error.reason})", node=node.label, remedy=_UNKNOWN) from None
        results.append(outputs)
    for name, *sources in zip(node.outputs, *results, strict=True):
        values: list[Any] = [importer.value(source, node.label) for source in sources]
        shapes = [v.shape if isinstance(v, np.ndarray) else tuple(int(d) for d in v.ty.shape.values) for v in values]
        if shapes[0] != shapes[1]:
            raise QCompileError(
                f"its condition ({node.input(0)}) is computed from the data, and decides about the shape of {name}",
                node=node.label,
                remedy=_UNKNOWN,
            )
        importer.inline(_only(Node("Where", (node.input(0), *sources), (name,), node.name), name))
    importer.notes.append(f"both branches of {node.name} are computed, as the data decides ({node.input(0)})")


def _loop(node: Node, importer: Importer) -> None:
    body = _Body.of(node, importer)
    most = int(_constant(node, importer, 0, "number of steps").item()) if node.input(0) else None
    goes_on = not node.input(1) or bool(_constant(node, importer, 1, "condition").item())
    state = [importer.value(name, node.label) for name in node.inputs[2:]]
    pieces: list[list[str]] = []
    step = 0
    while goes_on and (most is None or step < most):
        body.check_size(max(most or 0, step + 1))
        results = body.step(step, [np.asarray(step, np.int64), np.asarray(True), *state], importer)
        condition = importer.value(results[0], node.label)
        if not isinstance(condition, np.ndarray):
            raise QCompileError("whether it goes on is computed from the data", node=node.label, remedy=_UNKNOWN)
        goes_on = bool(condition.item())
        state = [importer.value(name, node.label) for name in results[1 : 1 + len(state)]]
        pieces.append(results[1 + len(state) :])
        step += 1
    _define(node.outputs[: len(state)], state, importer)
    _stack(node, node.outputs[len(state) :], pieces, (), (), importer)


def _scan(node: Node, importer: Importer) -> None:
    if importer.opset < 9:
        raise QCompileError("Scan of opset 8 is not supported", node=node.label, remedy="export with a newer opset")
    body, count = _Body.of(node, importer), int(node.get("num_scan_inputs"))
    state = [importer.value(name, node.label) for name in node.inputs[:-count]]
    scanned = node.inputs[-count:]
    axes = list(node.get("scan_input_axes") or [0] * count)
    backwards = list(node.get("scan_input_directions") or [0] * count)
    steps = _extent(importer.value(scanned[0], node.label), axes[0])
    body.check_size(steps)
    pieces: list[list[str]] = []
    for step in range(steps):
        elements = []
        for source, axis, back in zip(scanned, axes, backwards, strict=True):
            at, element = f"{body.prefix}{step}~at~{back}", f"{body.prefix}{step}~of~{source}~{axis}~{back}"
            importer.values[at] = np.asarray(steps - 1 - step if back else step, np.int64)
            gather = Node("Gather", (source, at), (element,), node.name, {"axis": axis})
            importer.inline(_only(gather, element))
            elements.append(importer.value(element, node.label))
        results = body.step(step, [*state, *elements], importer)
        state = [importer.value(name, node.label) for name in results[: len(state)]]
        pieces.append(results[len(state) :])
    _define(node.outputs[: len(state)], state, importer)
    axes, backwards = (list(node.get(f"scan_output_{which}") or []) for which in ("axes", "directions"))
    _stack(node, node.outputs[len(state) :], pieces, axes, backwards, importer)


@dataclass(frozen=True, slots=True)
class _Body:
    """The graph of one step. What is the same in every step is imported once; other names are made the step's own.

    shared: names of the former, as they are in the body, to their names outside.
    """

    node: Node
    graph: OnnxGraph
    inputs: tuple[str, ...]
    prefix: str
    shared: dict[str, str]

    @staticmethod
    def of(node: Node, importer: Importer) -> _Body:
        proto: onnx.GraphProto = node.get("body")
        graph, prefix = read_graph(proto, where=node.name), f"{_first(node)}~"
        inputs = tuple(value.name for value in proto.input)
        changing = set(inputs)
        fixed: list[Node] = []
        for inner in graph.nodes:
            if changing.isdisjoint({*inner.inputs, *subgraph_reads(inner)}):
                fixed.append(inner)
            else:
                changing.update(inner.outputs)
        shared = {name: f"{prefix}{name}" for name in graph.constants}
        shared |= {name: f"{prefix}{name}" for inner in fixed for name in inner.outputs if name}
        constants = {shared[name]: value for name, value in graph.constants.items()}
        importer.inline(OnnxGraph([], list(shared.values()), [_renamed(n, shared) for n in fixed], constants, {}))
        graph.nodes = [inner for inner in graph.nodes if not changing.isdisjoint(inner.outputs)]
        return _Body(node, graph, inputs, prefix, shared)

    def check_size(self, steps: int) -> None:
        count = len(self.graph.nodes)
        if steps * count > _MOST_NODES:
            raise QCompileError(
                f"its {steps} steps of {count} operators are too many to write out",
                node=self.node.label,
                remedy="give a shorter input (--input-shapes), or export the model without control flow",
            )

    def step(self, number: int, arguments: Sequence[Value], importer: Importer) -> list[str]:
        """Imports one step; the names of its results."""
        made = {name for inner in self.graph.nodes for name in inner.outputs if name}
        names = {name: f"{self.prefix}{number}~{name}" for name in (*made, *self.inputs)}
        names |= self.shared
        _define([names[name] for name in self.inputs], arguments, importer)
        nodes = [_renamed(inner, names) for inner in self.graph.nodes]
        results = [names.get(name, name) for name in self.graph.outputs]
        importer.inline(OnnxGraph([], results, nodes, {}, {}))
        return results


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    attributes = {
        key: _renamed_graph(value, names) if isinstance(value, onnx.GraphProto) else value
        for key, value in node.attributes.items()
    }
    inputs, outputs = (tuple(names.get(n, n) for n in some) for some in (node.inputs, node.outputs))
    return replace(node, inputs=inputs, outputs=outputs, attributes=attributes)


def _renamed_graph(proto: onnx.GraphProto, names: Mapping[str, str]) -> onnx.GraphProto:
    """A branch or body inside a step, which reads tensors of the step; names are unique in all of a model."""
    copy = onnx.GraphProto()
    copy.CopyFrom(proto)
    for node in copy.node:
        for some in (node.input, node.output):
            some[:] = [names.get(name, name) for name in some]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                attribute.g.CopyFrom(_renamed_graph(attribute.g, names))
    for output in copy.output:
        output.name = names.get(output.name, output.name)
    return copy


def _stack(
    node: Node,
    outputs: Sequence[str],
    pieces: Sequence[Sequence[str]],
    axes: Sequence[int],
    backwards: Sequence[int],
    importer: Importer,
) -> None:
    """The results of all steps side by side, along a new axis."""
    for index, output in enumerate(outputs):
        if not output:
            continue
        if not pieces:
            raise QCompileError("it has no steps", node=node.label, remedy="mend or re-export the model")
        axis, parts = axes[index] if axes else 0, []
        for number, results in enumerate(pieces):
            part, at = f"{output}~{number}~part", f"{output}~axis"
            importer.values[at] = np.asarray([axis], np.int64)
            by_input = importer.opset >= 13
            inputs, attributes = ((results[index], at), {}) if by_input else ((results[index],), {"axes": [axis]})
            importer.inline(_only(Node("Unsqueeze", inputs, (part,), node.name, attributes), part))
            parts.append(part)
        ordered = tuple(parts[::-1] if backwards and backwards[index] else parts)
        importer.inline(_only(Node("Concat", ordered, (output,), node.name, {"axis": axis}), output))


def _first(node: Node) -> str:
    return next(name for name in node.outputs if name)


def _only(node: Node, output: str) -> OnnxGraph:
    return OnnxGraph([], [output], [node], {}, {})


def _define(names: Sequence[str], values: Sequence[Value], importer: Importer) -> None:
    importer.values.update({name: value for name, value in zip(names, values, strict=True) if name})


def _constant(node: Node, importer: Importer, index: int, what: str) -> np.ndarray:
    value: Any = importer.value(node.input(index), node.label)
    if not isinstance(value, np.ndarray):
        raise QCompileError(
            f"its {what} ({node.input(index)}) is computed from the data", node=node.label, remedy=_UNKNOWN
        )
    return value


def _extent(value: Any, axis: int) -> int:
    return value.shape[axis] if isinstance(value, np.ndarray) else int(value.ty.shape.values[axis])
