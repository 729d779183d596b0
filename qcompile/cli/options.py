"""Options that several commands have, and values that are more than one word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import typer

from qcompile.cli.planning import Method
from qcompile.errors import QCompileError

CalibMethod = Annotated[Method, typer.Option("--calib-method", help="How ranges are chosen.")]
Percentile = Annotated[float | None, typer.Option("--percentile", help="Percent kept by that method (99.99).")]
Equalize = Annotated[bool, typer.Option("--equalize/--no-equalize", help="Bring channels to similar magnitudes first.")]
LearnRounding = Annotated[
    bool, typer.Option("--learn-rounding/--no-learn-rounding", help="Codes of weights by what layers compute.")
]
BiasCorrection = Annotated[
    bool, typer.Option("--bias-correction/--no-bias-correction", help="Keep the means of each layer's outputs.")
]
OUT = ("-o", "--out", "--output")  # what a command writes, wherever that is one file or folder

_SHAPE = re.compile(r"\s*(?P<name>.+?)\s*:\s*\[(?P<dims>[\d\s,]*)\]\s*")


def input_shapes(values: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """ "x:[1,3,224,224]" (repeated, or joined by ";") -> {"x": (1, 3, 224, 224)}; names may hold colons."""
    shapes: dict[str, tuple[int, ...]] = {}
    for value in values:
        for part in filter(str.strip, re.split(r"(?<=\])[;\s,]+|;", value)):
            match = _SHAPE.fullmatch(part)
            try:
                dims = tuple(int(d) for d in match["dims"].split(",") if d.strip()) if match else None
            except ValueError:
                dims = None
            if match is None or dims is None:
                raise QCompileError(
                    f"'{part.strip()}' is not a shape", node="--input-shapes", remedy='write it as "x:[1,3,224,224]"'
                )
            shapes[match["name"]] = dims
    return shapes


def names(values: Iterable[str]) -> tuple[str, ...]:
    """ "a,b" (repeated) -> ("a", "b")."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())
