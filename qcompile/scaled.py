"""A model with its channels scaled as a plan has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from qcompile.errors import QCompileError
from qcompile.model import Model
from qcompile.passes.equalize_channels import equalize_channels
from qcompile.passes.pipeline import run_passes
from qcompile.plan import QuantPlan


def scaled(model: Model, scales: Mapping[str, tuple[float, ...]]) -> Model:
    """``model``, whose channels nobody scaled yet, with those of these groups scaled."""
    if not scales:
        return model
    return replace(model, module=run_passes(model.module, [equalize_channels(scales)]), channel_scales=dict(scales))


def model_for_all(model: Model, plans: Iterable[QuantPlan]) -> Model:
    """The one model that several plans are for."""
    for plan in sorted(plans, key=lambda plan: not plan.channel_scales):
        model = model_for(model, plan)
    return model


def model_for(model: Model, plan: QuantPlan) -> Model:
    """The model that a plan is for: this one, with the plan's scales if it has none yet.

    Raises ``QCompileError`` if the plan has codes of a model with other scales.
    """
    wanted, there = dict(plan.channel_scales), dict(model.channel_scales)
    if wanted == there or not (wanted or plan.tensors):
        return model
    if there:
        raise QCompileError(
            "the plan was made for other scales of the model's channels",
            node=model.source or "model",
            remedy="give the model as it was imported",
        )
    return scaled(model, wanted)
