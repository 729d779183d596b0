"""Plans in which layers compute on floats, and store their weights in fewer bits."""

from __future__ import annotations

from collections.abc import Mapping

from qcompile.assign.constants import constant_plans
from qcompile.assign.formats import refusal
from qcompile.assign.grouped import stored_groups
from qcompile.assign.structure import Structure
from qcompile.calibrate.scales import symmetric_weight_scales
from qcompile.errors import QCompileError
from qcompile.formats import GROUP, format_of
from qcompile.passes.base import array
from qcompile.passes.group_weights import fitting_group, group_refusal
from qcompile.passes.weights import narrow_weight_scales, storage_refusal, weight_axis
from qcompile.plan import LayerPlan, TensorPlan


def weight_only_plans(
    structure: Structure, name: str, excluded: Mapping[str, str], group: int = GROUP
) -> tuple[dict[str, TensorPlan], dict[str, LayerPlan]]:
    """The plans of weights, and layer -> format: ``name`` where it can be had, int8 for tables beside integer weights.

    excluded: layers that stay in float32, and why. group: of weights that share an integer scale.
    """
    tensors: dict[str, TensorPlan] = {}
    layers: dict[str, LayerPlan] = {}
    row = format_of(name)
    table_codes = "float" not in row.weights
    for chain in structure.chains:
        reason = excluded.get(chain.name)
        if not (chain.kind == "gather" and table_codes):
            reason = (
                reason
                or storage_refusal(chain, row)
                or (group_refusal(chain, fitting_group(chain, group)) if row.grouped else None)
            )
        reason = reason or refusal(chain)
        if reason is not None:
            layers[chain.name] = LayerPlan("fp32", reason)
        elif "float8" in row.weights:
            axis = weight_axis(chain)
            numbers = tuple(map(float, narrow_weight_scales(array(chain.weight), axis, row.weights)))
            tensors[f"{chain.name}.weight"] = TensorPlan(numbers, (0,) * len(numbers), row.weights, axis)
            layers[chain.name] = LayerPlan(name)
        elif "float" in row.weights:
            tensors[f"{chain.name}.weight"] = TensorPlan((1.0,), (0,), row.weights)
            if chain.kind == "gather" and chain.bias is not None:
                tensors[f"{chain.name}.bias"] = TensorPlan((1.0,), (0,), row.weights)
            layers[chain.name] = LayerPlan(name)
        elif chain.kind == "gather":
            plans = constant_plans(chain, tensors)
            assert isinstance(plans, dict)
            tensors.update(plans)
            layers[chain.name] = LayerPlan("int8", "rows of codes, looked up as float32")
            if row.grouped and group_refusal(chain, group) is None:
                tensors[f"{chain.name}.weight"] = stored_groups(chain, group)
                layers[chain.name] = LayerPlan("w4a8", "rows of codes, looked up as float32")
        elif row.grouped:
            tensors[f"{chain.name}.weight"] = stored_groups(chain, group)
            layers[chain.name] = LayerPlan(name)
        else:
            axis = weight_axis(chain)
            try:
                scale = symmetric_weight_scales(array(chain.weight), axis=axis)
            except QCompileError as error:
                raise QCompileError(error.reason, node=chain.name, remedy=error.remedy) from None
            numbers = tuple(map(float, scale))
            tensors[f"{chain.name}.weight"] = TensorPlan(numbers, (0,) * scale.size, "int8", axis)
            layers[chain.name] = LayerPlan(name)
    return tensors, layers
