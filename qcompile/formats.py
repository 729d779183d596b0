"""The precisions that a layer may have, as rows: what a plan may say of a layer, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from qcompile.errors import QCompileError, nearest

GROUP = 32  # weights that share an integer scale, unless another size is asked for


@dataclass(frozen=True, slots=True)
class Format:
    """One precision.

    name: in ``LayerPlan.format``. codes: whether the layer reads 8-bit codes and sums in int32, or computes in float32.
    weights: dtype of its weights. grouped: whether groups of weights along the reduction have scales of their own.
    """

    name: str
    codes: bool
    weights: str
    grouped: bool = False


FORMATS = {
    row.name: row
    for row in (
        Format("fp32", codes=False, weights="float32"),
        Format("int8", codes=True, weights="int8"),
        Format("w4a8", codes=True, weights="int4", grouped=True),
        Format("w8", codes=False, weights="int8"),
    )
}


def format_of(name: str) -> Format:
    """The row of a name. Raises QCompileError for one that there is not."""
    if name not in FORMATS:
        raise QCompileError(f"unknown format '{name}'", remedy=nearest(name, list(FORMATS)))
    return FORMATS[name]


def format_with(codes: bool, weights: str) -> Format:
    """The row of what a layer computes on: codes or float32, and weights of this dtype."""
    return next(row for row in FORMATS.values() if (row.codes, row.weights) == (codes, weights))
