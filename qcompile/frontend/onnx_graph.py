"""The ONNX graph as plain Python: what the importer reads and rewrites instead of protobuf messages.

Protobuf messages over 2 GB cannot be serialised and repeated fields cannot be edited in the middle; lists of these can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

DEFAULT_DOMAINS = ("", "ai.onnx")
MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. An absent optional input or output is "".

    name: the node's name, or one made of its first output.
    attributes: int, float, str, list, ``numpy.ndarray`` (tensors) or ``onnx.GraphProto``.
    """

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""

    @property
    def label(self) -> str:
        """How messages call it: ``conv1 (Conv)``."""
        return f"{self.name} ({self.op_type})"

    def input(self, index: int) -> str:
        """Name of an input, "" if it is absent."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def get(self, attribute: str, default: Any = None) -> Any:
        return self.attributes.get(attribute, default)

    def with_inputs(self, *inputs: str) -> Node:
        return replace(self, inputs=inputs)


@dataclass(frozen=True, slots=True)
class InputInfo:
    """A model input as declared. dims: an int, the name of a symbol, or None (unknown); None if it has no shape."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...] | None


@dataclass(slots=True)
class OnnxGraph:
    """A whole model. ``nodes`` are in topological order; ``constants`` are initializers and what was folded so far."""

    inputs: list[InputInfo]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, np.ndarray]
    opsets: dict[str, int]
    source: str = ""
    source_bytes: int = 0

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.opsets.get("", 1)

    def users(self) -> dict[str, list[Node]]:
        """Tensor name -> the nodes that read it, once each."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    users.setdefault(name, []).append(node)
        return users

    def drop_dead_nodes(self) -> None:
        """Removes nodes that no output depends on, and constants that nothing reads."""
        live, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if any(out in live for out in node.outputs):
                kept.append(node)
                live.update(node.inputs)
                live.update(subgraph_reads(node))
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in live}


def subgraph_reads(node: Node) -> set[str]:
    """Names that the subgraphs of ``node`` (If, Loop) may read from the graph around them."""
    found: set[str] = set()
    graphs = [value for value in node.attributes.values() if hasattr(value, "initializer")]
    while graphs:
        graph = graphs.pop()
        found.update(output.name for output in graph.output)
        for inner in graph.node:
            found.update(inner.input)
            graphs.extend(a.g for a in inner.attribute if a.HasField("g"))
    return found
