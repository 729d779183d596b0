"""Questions about the loop nests (TVM's "sblocks") of a PrimFunc under a schedule."""

from __future__ import annotations

from math import prod
from typing import Any

from tvm import sym, tirx
from tvm.ir import Call, Expr
from tvm.s_tir import SBlockRealize, Schedule
from tvm.tirx import IterVar
from tvm.tirx.analysis import undefined_vars

Block = Any  # schedule variable of a nest
Loop = Any


def nests(schedule: Schedule) -> list[Block]:
    """The nests of the function, in order."""
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def extents(schedule: Schedule, loops: list[Loop]) -> list[int]:
    return [int(schedule.get(loop).extent) for loop in loops]


def trip_count(schedule: Schedule, block: Block) -> int:
    """How often the statement of a nest is executed."""
    return prod(extents(schedule, schedule.get_loops(block)))


def is_reduction(schedule: Schedule, block: Block) -> bool:
    return any(axis.iter_type == IterVar.CommReduce for axis in schedule.get(block).iter_vars)


def is_plain(schedule: Schedule) -> bool:
    """Whether every nest is one store under data-parallel and reduction axes: what the schedule knows how to treat."""
    root = schedule.mod["main"].body.block
    if root.name_hint != "root":  # one nest that calls a library (sorts) or loops on its own (scans)
        return False
    statements = [schedule.get(block) for block in nests(schedule)]
    axes = [axis for statement in statements for axis in statement.iter_vars]
    known = (IterVar.DataPar, IterVar.CommReduce)
    return all(isinstance(s.body, tirx.BufferStore) for s in statements) and all(a.iter_type in known for a in axes)


def is_output(schedule: Schedule, block: Block) -> bool:
    outputs = schedule.get_output_blocks(schedule.get_sblock("root"))
    return any(schedule.get(block).same_as(schedule.get(output)) for output in outputs)


def own_loops(schedule: Schedule, block: Block, rows: int = 0) -> tuple[list[Loop], list[Loop]]:
    """The data-parallel and the reduction loops of a nest, outermost first, without its first ``rows`` loops."""
    loops = schedule.get_loops(block)
    values = _realize(schedule, block, loops).iter_values if loops else []
    axes = schedule.get(block).iter_vars
    reduced = [v for v, axis in zip(values, axes, strict=False) if axis.iter_type == IterVar.CommReduce]

    def reduces(loop: Loop) -> bool:
        return any(_depends(value, schedule.get(loop).loop_var) for value in reduced)

    inner = loops[rows:]
    return [loop for loop in inner if not reduces(loop)], [loop for loop in inner if reduces(loop)]


def outer_loops(schedule: Schedule, block: Block) -> list[Loop]:
    """The leading serial data-parallel loops of a nest that hold nothing but each other."""
    reduced = [schedule.get(loop) for loop in own_loops(schedule, block)[1]]
    result: list[Loop] = []
    for loop in schedule.get_loops(block):
        statement = schedule.get(loop)
        if statement.kind != tirx.ForKind.SERIAL or any(statement.same_as(other) for other in reduced):
            break
        result.append(loop)
        if isinstance(statement.body, tirx.SeqStmt):
            break
    return result


def loop_over_neighbours(schedule: Schedule, block: Block) -> Loop | None:
    """The loop whose steps read neighbouring elements of the largest tensor that a nest reads, if one loop does."""
    axis, loops = neighbouring_axis(schedule, block), schedule.get_loops(block)
    if axis is None or not loops:
        return None
    pairs = zip(schedule.get(block).iter_vars, _realize(schedule, block, loops).iter_values, strict=True)
    index = next(value for a, value in pairs if a.var.same_as(axis.var))
    return next((loop for loop in loops if schedule.get(loop).loop_var.same_as(index)), None)


def _realize(schedule: Schedule, block: Block, loops: list[Loop]) -> SBlockRealize:
    body = schedule.get(loops[-1]).body
    candidates = body.seq if isinstance(body, tirx.SeqStmt) else [body]
    nest = schedule.get(block)
    realize = next((c for c in candidates if isinstance(c, SBlockRealize) and c.block.same_as(nest)), None)
    if realize is None:
        raise ValueError("a nest is not directly under its loops")
    return realize


def neighbouring_axis(schedule: Schedule, block: Block) -> IterVar | None:
    """The axis of a nest that runs over neighbouring elements of the largest tensor that it reads."""
    statement = schedule.get(block)
    if not statement.reads:
        return None
    largest = max(statement.reads, key=lambda region: prod(int(extent) for extent in region.source.shape))
    wide = [r.min for r, extent in zip(largest.region, largest.source.shape, strict=True) if int(extent) > 1]
    if not wide:
        return None
    *steps, _ = sym.detect_linear_equation(wide[-1], [a.var for a in statement.iter_vars]) or [None]
    return next(
        (a for a, step in zip(statement.iter_vars, steps, strict=False) if sym.Analyzer().can_prove_equal(step, 1)),
        None,
    )


def reduces_neighbours(schedule: Schedule, block: Block) -> bool:
    """Whether a nest is a reduction over neighbouring elements."""
    axis = neighbouring_axis(schedule, block)
    return axis is not None and axis.iter_type == IterVar.CommReduce


def is_cheap(expr: Any) -> bool:
    """Whether an expression is loads and arithmetic only, no function of a library and no polynomial."""
    if isinstance(expr, (Call, tirx.Let, tirx.Div)):
        return False
    parts = ("a", "b", "value", "condition", "true_value", "false_value")
    return all(is_cheap(getattr(expr, part)) for part in parts if isinstance(getattr(expr, part, None), Expr))


def vector_factor(extent: int, lanes: int) -> int | None:
    """How many iterations of a loop make a vector: all, or a divisor near the target's lanes; None if there is none."""
    if extent % lanes == 0:
        return lanes
    if extent <= 2 * lanes:
        return extent if extent > 1 else None
    return next((factor for factor in range(2 * lanes, lanes // 2 - 1, -1) if extent % factor == 0), None)


def _depends(expr: Any, var: Any) -> bool:
    return any(used.same_as(var) for used in undefined_vars(expr, []))
