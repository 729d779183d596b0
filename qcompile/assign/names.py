"""What people call the parts of a model: the layers that they exclude, the inputs and outputs that are to be codes."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.assign.structure import Structure
from qcompile.errors import QCompileError, nearest
from qcompile.model import Model


def excluded_layers(model: Model, structure: Structure, names: Sequence[str]) -> dict[str, str]:
    """The layers that the user wants in float, and by which name: of an ONNX node, a tensor, or an operator type."""
    nodes = {layer.node for layer in model.layers.values()}
    kinds = {layer.op_type for layer in model.layers.values()}
    tensors = {var.name for var in structure.definitions}
    _check("node, layer or operator type", names, sorted(nodes | kinds | tensors | set(model.layers)))
    wanted, result = set(names), {}
    for chain in structure.chains:
        for var in chain.members:
            layer = model.layers.get(var.name) or model.layers.get(var.name.partition("~")[0])
            titles = {var.name} | ({layer.node, layer.op_type} if layer else set())
            for name in titles & wanted:
                result[chain.name] = f"excluded as {name}"
    return result


def check_ends(model: Model, structure: Structure, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raises ``QCompileError`` for a name that is no float32 input, or no computed output, of the model."""
    computed = [out.name for out in structure.outputs if hasattr(out, "name")]
    _check("input", inputs, [spec.name for spec in model.inputs if spec.dtype == "float32"])
    _check("output", outputs, [spec.name for spec in model.outputs if spec.name in computed])


def _check(what: str, names: Sequence[str], valid: Sequence[str]) -> None:
    for name in names:
        if name not in valid:
            raise QCompileError(f"no {what} of this name", node=name, remedy=nearest(name, valid))
