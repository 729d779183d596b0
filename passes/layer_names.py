"""The ONNX node that a variable came from."""

from __future__ import annotations

from collections.abc import Mapping

SUFFIXES = (".q", ".dq", ".weight", ".bias")


def layer_name(variable: str, layers: Mapping[str, str]) -> str:
    """Node of a variable; of the tensor whose codes, or a step on the way to which, it is; else the variable's name."""
    tensor = variable
    for suffix in SUFFIXES:
        tensor = tensor.removesuffix(suffix)
    for name in (tensor, tensor.partition("~")[0]):
        if name in layers:
            return layers[name]
    return tensor
