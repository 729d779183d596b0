"""Plans in which weights are codes and activations stay in float32."""

from __future__ import annotations

from collections.abc import Mapping

from qcompile.assign.constants import constant_plans
from qcompile.assign.formats import refusal
from qcompile.assign.structure import Structure
from qcompile.calibrate.scales import symmetric_weight_scales
from qcompile.errors import QCompileError
from qcompile.passes.base import array
from qcompile.passes.weights import weight_axis
from qcompile.plan import LayerPlan, TensorPlan


def weight_only_plans(
    structure: Structure, name: str, excluded: Mapping[str, str]
) -> tuple[dict[str, TensorPlan], dict[str, LayerPlan]]:
    """The plans of weights, and layer -> format: ``name`` for matrix products with a constant, int8 for tables.

    excluded: layers that stay in float32, and why.
    """
    tensors: dict[str, TensorPlan] = {}
    layers: dict[str, LayerPlan] = {}
    for chain in structure.chains:
        reason = excluded.get(chain.name) or refusal(chain)
        if reason is None and chain.kind not in ("dense", "gather"):
            reason = f"{name} is for matrix products with a constant, not {chain.kind}"
        if reason is not None:
            layers[chain.name] = LayerPlan("fp32", reason)
        elif chain.kind == "gather":
            plans = constant_plans(chain, tensors)
            assert isinstance(plans, dict)
            tensors.update(plans)
            layers[chain.name] = LayerPlan("int8", "rows of codes, looked up as float32")
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
