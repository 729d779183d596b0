"""``plan_imported``: the plan that a pre-quantized model brings along, completed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from tvm import relax

from qcompile import graph
from qcompile.assign.constants import constant_plans
from qcompile.assign.formats import choose_formats
from qcompile.assign.names import check_ends, excluded_layers
from qcompile.assign.scales import coded_paths
from qcompile.assign.structure import Structure
from qcompile.errors import QCompileError
from qcompile.model import Model
from qcompile.passes.base import array
from qcompile.passes.chain import WEIGHTED, Chain
from qcompile.passes.weights import weight_axis
from qcompile.plan import LayerPlan, QuantPlan, TensorPlan


def brings_scales(model: Model) -> bool:
    """Whether a model was imported with scales of its activations; a dynamically quantized one has those of weights."""
    main = graph.read(model.module)
    names = {var.name for var in (*main.params, *(var for var, _ in main.bindings))}
    return model.imported_plan is not None and not names.isdisjoint(model.imported_plan.tensors)


def plan_imported(
    model: Model,
    exclude: Sequence[str] = (),
    integer_inputs: Sequence[str] = (),
    integer_outputs: Sequence[str] = (),
) -> QuantPlan:
    """The plan for a model that was imported with scales: its layers are int8 where it had scales for what they read.

    Activations keep their scales, zero points and types; inside a fused layer there is nothing to round, so what the
    model had there is dropped. Symmetric int8 weights keep their scales, others get new ones.

    model: tidied. exclude: ONNX node names, layer (tensor) names or operator types that stay in float32.
    integer_inputs, integer_outputs: inputs and outputs that are given and returned as codes, besides those that the
    model has so.

    Raises
    ------
    QCompileError: for a model without scales of activations, and a name that the model does not have.
    """
    given = model.imported_plan
    if given is None or not brings_scales(model):
        reason = "not a pre-quantized model" if given is None else "it has scales of weights only"
        raise QCompileError(reason, node=model.source, remedy="calibrate it, and use plan_uniform")
    structure = Structure(graph.read(model.module))
    check_ends(model, structure, integer_inputs, integer_outputs)
    inputs = tuple(dict.fromkeys([*given.integer_inputs, *integer_inputs]))
    outputs = tuple(dict.fromkeys([*given.integer_outputs, *integer_outputs]))
    refused = {c.name: reason for c in structure.chains if (reason := _missing(c, structure, given.tensors))}
    refused.update(excluded_layers(model, structure, exclude))
    layers = choose_formats(structure, refused, inputs, outputs)
    int8 = [c for c in structure.chains if layers[c.name].format == "int8"]
    tensors: dict[str, TensorPlan] = {}
    for path in coded_paths(structure, int8, inputs, outputs):
        plan = _scale(path, given.tensors)
        root = path[-1].name
        if plan is None:
            raise QCompileError("the model has no scale of this tensor", node=root, remedy="quantize the model again")
        tensors.setdefault(root, replace(plan, kind="imported", source=""))
        for var in path[:-1]:
            tensors[var.name] = replace(tensors[root], kind="shared", source=root)
    for chain in int8:
        constants = constant_plans(chain, tensors, _weight_scale(chain, given.tensors))
        if isinstance(constants, str):
            layers[chain.name] = LayerPlan("fp32", constants)
        else:
            tensors.update(constants)
    return QuantPlan(tensors, layers, inputs, outputs, given.method or "imported")


def _scale(path: list[relax.Var], tensors: Mapping[str, TensorPlan]) -> TensorPlan | None:
    """The scale of the root, or of what is moved of it."""
    return next((tensors[var.name] for var in reversed(path) if var.name in tensors), None)


def _missing(chain: Chain, structure: Structure, tensors: Mapping[str, TensorPlan]) -> str | None:
    if chain.kind == "gather" and not any(f"{var.name}.weight" in tensors for var in chain.members):
        return "the imported model has a table of float32"
    operands = structure.data(chain)
    if chain.residual is not None and chain.name in tensors:
        operands.append(chain.residual)
    for var in operands:
        if _scale(structure.path(var), tensors) is None:
            return f"the imported model has no scale of {var.name}"
    return None


def _weight_scale(chain: Chain, tensors: Mapping[str, TensorPlan]) -> np.ndarray | None:
    """The imported scales (channels,) if the weight is still made of int8 codes times them."""
    if chain.kind not in WEIGHTED:
        return None
    names = [f"{var.name}.weight" for var in chain.members]
    plan = next((tensors[name] for name in names if name in tensors), None)
    if plan is None or plan.dtype != "int8" or any(plan.zero_point):
        return None
    weight, axis = array(chain.weight), weight_axis(chain)
    if len(plan.scale) not in (1, weight.shape[axis]):
        return None
    scale = np.broadcast_to(np.array(plan.scale, np.float32), (weight.shape[axis],))
    shape = [1] * weight.ndim
    shape[axis] = -1
    codes = weight / scale.reshape(shape)
    exact = np.abs(codes - np.rint(codes)).max(initial=0) < 0.01 and codes.min() > -128.5 and codes.max() < 127.5
    return np.ascontiguousarray(scale) if exact else None
