"""Static shapes for the inputs of a model: as declared, as ``--input-shapes`` says, or batch 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qcompile.errors import QCompileError, nearest
from qcompile.frontend.onnx_graph import InputInfo
from qcompile.model import TensorSpec


def resolve_inputs(
    inputs: Sequence[InputInfo], given: Mapping[str, Sequence[int]] | None
) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """Specs with static shapes, and remarks about what was chosen for the user.

    A symbol ("N") that ``given`` fixes for one input is fixed for all. A symbolic first dimension that nothing fixes
    becomes 1. Raises ``QCompileError`` for other unknown dimensions and for shapes that contradict the model.
    """
    given = dict(given or {})
    for name in given:
        if name not in {i.name for i in inputs}:
            raise QCompileError(
                "no such input", node=f"--input-shapes {name}", remedy=nearest(name, [i.name for i in inputs])
            )
    symbols: dict[str, int] = {}
    for info in inputs:
        if info.name in given:
            _unify(info, tuple(given[info.name]), symbols)
    specs: list[TensorSpec] = []
    batches: list[str] = []
    for info in inputs:
        shape = tuple(given[info.name]) if info.name in given else _default(info, symbols, batches)
        specs.append(TensorSpec(info.name, tuple(int(d) for d in shape), info.dtype))
    if not batches:
        return tuple(specs), ()
    example = ",".join(str(d) for d in next(s.shape for s in specs if s.name == batches[0]))
    note = f"dynamic batch of {', '.join(batches)} fixed to 1 (change it with --input-shapes {batches[0]}:[{example}])"
    return tuple(specs), (note,)


def _unify(info: InputInfo, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    """Checks a given shape against the declared one and learns its symbols."""
    where = f"input {info.name}"
    shown = "x".join(map(str, shape))
    if any(not isinstance(d, int) or isinstance(d, bool) or d < 1 for d in shape):
        raise QCompileError(f"{shown} is not a shape", node=where, remedy="give positive integers")
    if info.dims is None:
        return
    declared = "x".join("?" if d is None else str(d) for d in info.dims)
    if len(shape) != len(info.dims):
        raise QCompileError(
            f"--input-shapes gives {shown}, the model has {declared}",
            node=where,
            remedy=f"give {len(info.dims)} dimensions",
        )
    for axis, (want, have) in enumerate(zip(shape, info.dims, strict=True)):
        fixed = symbols.setdefault(have, want) if isinstance(have, str) else have
        if fixed is not None and fixed != want:
            raise QCompileError(
                f"--input-shapes gives {shown}, the model has {declared}",
                node=where,
                remedy=f"dimension {axis} must be {fixed}",
            )


def _default(info: InputInfo, symbols: dict[str, int], batches: list[str]) -> tuple[int, ...]:
    if info.dims is None:
        raise QCompileError(
            "its shape is unknown", node=f"input {info.name}", remedy=f"give it: --input-shapes {info.name}:[...]"
        )
    shape: list[int] = []
    for axis, dim in enumerate(info.dims):
        known = symbols.get(dim) if isinstance(dim, str) else dim
        if known is None and axis == 0:
            batches.append(info.name)
            known = 1
            if isinstance(dim, str):
                symbols[dim] = 1
        if known is None:
            declared = ",".join("?" if d is None else str(d) for d in info.dims)
            example = ",".join(str(d) if isinstance(d, int) else "1" for d in info.dims)
            raise QCompileError(
                f"dimension {axis} ({dim or '?'}) of [{declared}] is not fixed",
                node=f"input {info.name}",
                remedy=f"fix it: --input-shapes {info.name}:[{example}]",
            )
        shape.append(known)
    return tuple(shape)
