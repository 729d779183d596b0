"""Tables whose rows are looked up: which of them are stored as codes, with a scale for each row."""

from __future__ import annotations

from math import prod

import numpy as np
from tvm import relax

from qcompile.passes.base import array, dtype_of, op_name, shape_of

MIN_ELEMENTS = 4096  # 16 KB of float32: smaller tables save too little memory to lose accuracy for


def looks_up(value: relax.Expr | None) -> bool:
    """Whether a call takes rows of a float32 matrix."""
    if op_name(value) != "take" or value.attrs.axis is None:
        return False
    table = value.args[0]
    return len(shape_of(table)) == 2 and dtype_of(table) == "float32" and int(value.attrs.axis) in (0, -2)


def why_not(table: relax.Expr) -> str | None:
    """Why a constant table stays in float32, None if it need not."""
    elements = prod(shape_of(table))
    return f"a table of {elements} elements; codes pay from {MIN_ELEMENTS}" if elements < MIN_ELEMENTS else None


def not_finite(*tables: relax.Expr | None) -> str | None:
    """Why tables with NaN or infinity stay in float32, None for others and for tables that are codes already."""
    values = [array(table) for table in tables if table is not None]
    return None if all(v is None or np.isfinite(v).all() for v in values) else "NaN or infinity in its table"


def is_addend(constant: relax.Expr, rows: relax.Expr) -> bool:
    """Whether a constant (1, ..., R, D) that is added to rows (..., R, D) is a table of rows itself, large enough."""
    shape, full = shape_of(constant), shape_of(rows)
    if not 2 <= len(shape) <= len(full) or why_not(constant) is not None:
        return False
    return shape[-2:] == full[-2:] and prod(shape[:-2]) == 1
