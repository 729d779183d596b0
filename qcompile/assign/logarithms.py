"""Logarithms ask for relative precision, which codes do not have: what computes their operands may stay in float32."""

from __future__ import annotations

from tvm import relax

from qcompile.assign.structure import Structure
from qcompile.calibrate.stats import TensorStats
from qcompile.passes.base import op_name
from qcompile.passes.chain import CONV, CONV_TRANSPOSE
from qcompile.passes.movement import moved_from

LOG_CHANGE = 0.125  # by rounding its operand to codes, at most
# What an operand of a logarithm is computed by, up to the last activation: energies, from spectra, from samples.
_THROUGH = {"add", "subtract", "multiply", "divide", "maximum", "minimum", "clip", "power", "sqrt", "abs", "negative"}
_THROUGH |= {"sum", "mean", "concat", "matmul", *CONV, *CONV_TRANSPOSE}


def before_logarithms(structure: Structure, stats: TensorStats | None) -> dict[str, str]:
    """Layers whose results reach a logarithm and are too close to 0 there for codes, and why they stay in float32.

    ``log(x)`` changes by ``step / (2 x)`` when x is rounded to codes ``step`` apart: spectrograms within a model span
    many powers of ten, of which 256 codes hold two.
    """
    reasons: dict[str, str] = {}
    for var, value in structure.main.bindings:
        if op_name(value) != "log" or not isinstance(value.args[0], relax.Var):
            continue
        operands = _operands(structure, value.args[0])
        record = next((stats.records[v.name] for v in operands if v.name in stats.records), None) if stats else None
        if record is None:
            continue
        step, least = (record.max - record.min) / 255, max(record.min, 0.0)
        if step / 2 <= LOG_CHANGE * least:
            continue
        why = f"{var.name} is a logarithm of values down to {least:.2g}; codes would be {step:.2g} apart"
        for operand in (var, *operands):
            if operand in structure.chain_of:
                reasons.setdefault(structure.chain_of[operand].name, why)
    return reasons


def _operands(structure: Structure, var: relax.Var) -> list[relax.Var]:
    """``var``, and all that it is computed of without an activation in between, the nearest first."""
    found: list[relax.Var] = []
    waiting = [var]
    while waiting:
        current = waiting.pop(0)
        if any(current.same_as(other) for other in found):
            continue
        value = structure.definitions.get(current)
        source = moved_from(value, structure.definitions)
        if isinstance(source, relax.Var):
            waiting.append(source)
        elif op_name(value) in _THROUGH:
            found.append(current)
            arguments = [field for arg in value.args for field in getattr(arg, "fields", [arg])]
            waiting += [arg for arg in arguments if isinstance(arg, relax.Var) and structure.is_float(arg)]
    return found
