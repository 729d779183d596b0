"""Which kernel calls belong to a layer in a format."""

from __future__ import annotations

from collections.abc import Mapping

from qcompile.assign.table import FLOAT
from qcompile.simulate.calls import Kernels, Place
from qcompile.simulate.program import Chosen, needed
from qcompile.simulate.variant import Variant

Variants = Mapping[str, tuple[Variant, ...]]


def option_of(variants: tuple[Variant, ...], format: str) -> int:
    """A layer's variant in a format, the one that writes codes if there are several; fp32 if it cannot have it."""
    fitting = [i for i, variant in enumerate(variants) if variant.format == format] or [0]
    return next((i for i in fitting if variants[i].codes), fitting[0])


def is_spare(variant: Variant, variants: tuple[Variant, ...]) -> bool:
    """Whether another variant is what a build mostly has in this format."""
    return variants[option_of(variants, variant.format)] != variant


def uniform_choice(kernels: Kernels, variants: Variants, format: str) -> Chosen:
    """Every layer in a format, as far as it can have it."""
    chosen = [0] * len(kernels.options)
    for layer, known in variants.items():
        chosen[kernels.choices[layer]] = option_of(known, format)
    return tuple(chosen)


def own_calls(kernels: Kernels, variants: Variants, layer: str, format: str) -> set[int]:
    """The calls that compute a layer in a format, from the results of other layers."""
    known, best = variants[layer], option_of(variants[layer], format)
    parts = [_slice(kernels, place) for place in kernels.options[kernels.choices[layer]]]
    others = [part for i, part in enumerate(parts) if (known[i].format == FLOAT) != (best == 0)]
    return parts[best].difference(*others)  # what float and integer variants both read is of islands before them


def _slice(kernels: Kernels, place: Place) -> set[int]:
    return needed(kernels, (0,) * len(kernels.options), [place], stop_at_choices=True)
