"""Tensors take the names of model outputs that they reach through Identity.

Exporters and quantizers end a model with such copies::

    t45 = Add(...); output = Identity(t45)   ->   output = Add(...)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qcompile.frontend.onnx_graph import DEFAULT_DOMAINS, Node, OnnxGraph, subgraph_reads
from qcompile.plan import QuantPlan


def name_after_outputs(graph: OnnxGraph) -> dict[str, str]:
    """Renames in ``graph`` what an output is a mere copy of; old name -> new name.

    Inputs, constants, tensors that are outputs themselves, and what a branch of an If reads keep their names.
    """
    made = {out for node in graph.nodes for out in node.outputs}
    fixed = set(graph.outputs).union(*(subgraph_reads(node) for node in graph.nodes))
    renamed: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        copy = node.op_type == "Identity" and node.domain in DEFAULT_DOMAINS
        source, out = node.input(0), node.outputs[0]
        if copy and out in graph.outputs and source in made and source not in fixed and source not in renamed:
            renamed[source] = out
        else:
            kept.append(node)
    graph.nodes = [
        replace(
            node,
            inputs=tuple(renamed.get(n, n) for n in node.inputs),
            outputs=tuple(renamed.get(n, n) for n in node.outputs),
        )
        for node in kept
    ]
    return renamed


def rename_plan(plan: QuantPlan, renamed: Mapping[str, str]) -> QuantPlan:
    """``plan`` with its tensors under their new names; weights and biases follow their layer."""

    def new(name: str) -> str:
        layer, dot, part = name.rpartition(".")
        if name not in renamed and part in ("weight", "bias") and layer in renamed:
            return renamed[layer] + dot + part
        return renamed.get(name, name)

    tensors = {new(name): tensor for name, tensor in plan.tensors.items()}
    return replace(plan, tensors=tensors)
