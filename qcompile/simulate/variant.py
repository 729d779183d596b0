"""What the simulation knows of configurations: plans that can be combined, and ways to compute a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qcompile.assign.combine import combine
from qcompile.assign.table import FLOAT
from qcompile.model import Model
from qcompile.plan import LayerPlan, QuantPlan

Formats = Mapping[str, str]  # layer -> format; fp32 for a layer that is not named
Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to compute a layer.

    format: whose plan says how; there, a layer that cannot have the format may have another one.
    codes: whether its result lies on the grid of the tensor's codes; so it does where another layer reads its codes.
    residual: whether it adds the codes of its residual although its result is float32.
    """

    format: str
    codes: bool = False
    residual: bool = False


@dataclass(frozen=True, slots=True)
class Space:
    """All configurations of a model: plans by format (but fp32), and what ``SensitivityTable`` says of the rest."""

    plans: Mapping[str, QuantPlan]
    reads: Names
    residuals: Names
    passive: tuple[str, ...]

    @staticmethod
    def of(model: Model, plans: Mapping[str, QuantPlan]) -> Space:
        """plans: by format, with every layer in it that can be. Model inputs and outputs are float32 in all of them."""
        from qcompile import graph
        from qcompile.assign.flow import find_passive, find_reads, find_residuals
        from qcompile.assign.structure import Structure

        plans = {
            name: replace(plan, integer_inputs=(), integer_outputs=()) for name, plan in plans.items() if name != FLOAT
        }
        structure = Structure(graph.read(model.module))
        return Space(plans, find_reads(structure, plans), find_residuals(structure, plans), find_passive(structure))

    def plan(
        self, formats: Formats, residuals: Names | None = None, passive: tuple[str, ...] | None = None
    ) -> QuantPlan:
        """The plan of one configuration."""
        chosen = {layer: LayerPlan(name, "simulated") for layer, name in formats.items()}
        return combine(
            self.plans,
            chosen,
            self.reads,
            self.residuals if residuals is None else residuals,
            self.passive if passive is None else passive,
        )


def find_variant(variants: tuple[Variant, ...], layer: str, wanted: str, plan: QuantPlan, residuals: Names) -> int:
    """Which of a layer's variants a build of ``plan`` has, if format ``wanted`` was asked for; the first is float32."""
    if wanted == FLOAT or layer not in plan.layers or plan.layers[layer].format == FLOAT:
        return 0
    codes = layer in plan.tensors
    residual = not codes and any(name in plan.tensors for name in residuals.get(layer, ()))
    fitting = [i for i, variant in enumerate(variants) if variant.format == wanted]
    order = [Variant(wanted, codes, residual), Variant(wanted, codes), Variant(wanted), Variant(wanted, True)]
    return min(fitting, key=lambda i: order.index(variants[i]) if variants[i] in order else len(order), default=0)
