"""The precisions that a layer may have, as rows: what a plan may say of a layer, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from qcompile.errors import QCompileError, nearest

GROUP = 32  # weights that share an integer scale, unless another size is asked for
ITEM_BYTES = {  # of one element
    **{"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1},
    **{"uint8": 1, "int8": 1, "int4": 0.5},
}


@dataclass(frozen=True, slots=True)
class Format:
    """One precision.

    name: in ``LayerPlan.format``. activations: dtype that the layer reads: "uint8" codes are summed in int32, floats
    (narrow ones rounded where they are read) in float32. weights: dtype that its weights are stored in.
    grouped: whether groups of weights along the reduction have scales of their own.

    A row says what is computed, on every machine alike: a plan means one result wherever it is built, so that what was
    analyzed on one machine is deployed on another. That is why halves that are multiplied ("half") and weights that are
    only stored in halves ("fp16") are two rows. Which of them a target means by a word of a user, and which rows it has
    kernels of, its own row says (``targets.cuda.rows``).
    """

    name: str
    activations: str
    weights: str
    grouped: bool = False

    @property
    def codes(self) -> bool:
        """Whether the layer reads 8-bit codes and sums in int32, or computes in float32."""
        return self.activations == "uint8"

    @property
    def integer_weights(self) -> bool:
        """Whether its weights are codes, which may be rounded either way, or floats."""
        return self.weights in ("int8", "int4")

    @property
    def activation_bytes(self) -> int:
        """Bytes of one element that the layer reads."""
        return int(ITEM_BYTES[self.activations])


FORMATS = {
    row.name: row
    for row in (
        Format("fp32", "float32", "float32"),
        Format("bf16", "bfloat16", "bfloat16"),
        Format("half", "float16", "float16"),
        Format("fp8_e4m3", "float8_e4m3fn", "float8_e4m3fn"),
        Format("fp8_e5m2", "float8_e5m2", "float8_e5m2"),
        Format("int8", "uint8", "int8"),
        Format("w4a8", "uint8", "int4", grouped=True),
        Format("w8", "float32", "int8"),
        Format("w4", "float32", "int4", grouped=True),
        Format("fp16", "float32", "float16"),
    )
}


def format_of(name: str) -> Format:
    """The row of a name. Raises QCompileError for one that there is not."""
    if name not in FORMATS:
        raise QCompileError(f"unknown format '{name}'", remedy=nearest(name, list(FORMATS)))
    return FORMATS[name]


def format_with(activations: str, weights: str) -> Format:
    """The row of what a layer computes on: dtypes of what it reads and of its weights."""
    return next(row for row in FORMATS.values() if (row.activations, row.weights) == (activations, weights))


def is_format(activations: str, weights: str) -> bool:
    """Whether there is a row of these dtypes."""
    return any((row.activations, row.weights) == (activations, weights) for row in FORMATS.values())


def added_as(activations: str) -> str:
    """The dtype that a layer of floats that reads ``activations`` rounds a residual to: never one of 8 bits."""
    return activations if ITEM_BYTES[activations] > 1 else "float32"
