"""Plans of single formats, put together: each layer in the format that was chosen for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from qcompile.assign.table import FLOAT, OUTSIDE
from qcompile.plan import LayerPlan, QuantPlan, TensorPlan


def combine(
    plans: Mapping[str, QuantPlan],
    chosen: Mapping[str, LayerPlan],
    reads: Mapping[str, tuple[str, ...]],
    residuals: Mapping[str, tuple[str, ...]],
    passive: Collection[str] = (),
) -> QuantPlan:
    """One plan of the layers of several.

    Parameters
    ----------
    plans: by format name, each of the whole model with all in that format that can be; "fp32" needs none.
    chosen: layer -> its format, and why. Layers that are not named stay as they are in every plan (the first says why).
    reads, residuals, passive: as in ``SensitivityTable``.

    A layer that the plan of its format has in another one has that: fp32 where it cannot be, and why; "int8" if it has
    no weights that the format could be of. Only tensors that some layer reads as codes are in the plan.
    """
    layers: dict[str, LayerPlan] = {}
    for plan in plans.values():
        for name, layer in plan.layers.items():
            layers.setdefault(name, layer if layer.format == FLOAT else LayerPlan(FLOAT, "not chosen"))
    sources: dict[str, QuantPlan] = {}  # of the tensors of each layer that is not float32
    for name, wish in chosen.items():
        offered = plans[wish.format].layers.get(name, wish) if wish.format in plans else wish
        layers[name] = offered if offered.format == FLOAT else LayerPlan(offered.format, wish.why)
        if layers[name].format != FLOAT and wish.format in plans:
            sources[name] = plans[wish.format]
    while True:
        tensors = _tensors(plans, sources, reads, residuals)
        firm = _tensors(plans, {n: p for n, p in sources.items() if n not in passive or n in tensors}, reads, residuals)
        idle = [n for n in passive if n in sources and n not in tensors and not _stored(n, reads, firm)]
        if not idle:
            break
        layers.update(dict.fromkeys(idle, LayerPlan(FLOAT, "its result is wanted as float32")))
        sources = {name: plan for name, plan in sources.items() if name not in idle}
    ends = next(iter(plans.values()), QuantPlan())
    return QuantPlan(tensors, layers, ends.integer_inputs, ends.integer_outputs, ends.method, ends.channel_scales)


def _stored(layer: str, reads: Mapping[str, tuple[str, ...]], tensors: Mapping[str, TensorPlan]) -> bool:
    """Whether all that a layer reads is stored as codes anyway."""
    return all(name in tensors for name in reads.get(layer, ()))


def _tensors(
    plans: Mapping[str, QuantPlan],
    sources: Mapping[str, QuantPlan],
    reads: Mapping[str, tuple[str, ...]],
    residuals: Mapping[str, tuple[str, ...]],
) -> dict[str, TensorPlan]:
    """The tensors that the layers of ``sources`` read as codes."""
    tensors: dict[str, TensorPlan] = {}
    for plan in plans.values():
        _take(tensors, reads.get(OUTSIDE, ()), plan)
    for name, plan in sources.items():
        _take(tensors, reads.get(name, ()), plan)
    count = -1
    while count != len(tensors):
        count = len(tensors)
        for name, plan in sources.items():
            if name in tensors:
                _take(tensors, residuals.get(name, ()), plan)
    return tensors


def _take(tensors: dict[str, TensorPlan], names: Iterable[str], plan: QuantPlan) -> None:
    for name in names:
        if name in plan.tensors:
            tensors.setdefault(name, plan.tensors[name])
