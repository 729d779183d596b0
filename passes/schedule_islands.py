"""A sound default schedule for every PrimFunc that has none: what TVM generated for float islands.

::

    for i, j: e[i, j] = f(x[i, j])            for i:                                  (parallel if it pays)
    for i, k: s[i] += e[i, k]                     for jo: e[jo * 16 : +16] = f(x[i, jo * 16 : +16])
    for i, j: y[i, j] = e[i, j] / s[i]    ->      for ko: part[0:16] += e[ko * 16 : +16]
                                                  for l: s += part[l]
                                                  for jo: y[i, jo * 16 : +16] = e[jo * 16 : +16] / s

1. A nest that one other nest reads is inlined there, unless that would compute it more often.
2. A reduction over neighbouring elements gets a vector of partial sums (float sums may be reassociated in islands).
3. Nests over the same rows are computed row by row, so that a row stays in cache and its buffers on the stack.
4. Innermost loops become vectors. A vector may be narrower than the target's: LLVM widens it.

What cannot be scheduled stays as TVM made it and says so in the attribute ``UNSCHEDULED``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import tvm
from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import ScheduleError
from tvm.tirx import PrimFunc

from qcompile.passes.base import module_pass
from qcompile.passes.island_blocks import (
    Block,
    Loop,
    extents,
    is_cheap,
    is_output,
    is_plain,
    is_reduction,
    loop_over_neighbours,
    nests,
    outer_loops,
    own_loops,
    reduces_neighbours,
    trip_count,
    vector_factor,
)
from qcompile.passes.island_memory import with_stack_memory
from qcompile.targets.target import Target

SCHEDULED = "tirx.is_scheduled"
UNSCHEDULED = "qcompile.unscheduled"  # attribute of a function that was left alone: why
_PARALLEL_FROM = 1 << 15  # elements that are worth waking threads for
_SUMS = 16  # partial sums side by side: the widest vectors of any target
_STACK_ROW_BYTES = 16 << 10


def ScheduleIslands(target: Target) -> tvm.ir.transform.Pass:  # noqa: N802 (named like TVM's own passes)
    """Schedules the PrimFuncs of a module that lack ``tirx.is_scheduled``; the others are not touched."""

    def run(module: IRModule) -> IRModule:
        functions = {
            gvar: scheduled(function, target)
            if isinstance(function, PrimFunc) and not function.attrs.get(SCHEDULED)
            else function
            for gvar, function in module.functions_items()
        }
        return IRModule(functions, attrs=module.attrs)

    return module_pass("ScheduleIslands", run, ScheduleIslands.__doc__)


def scheduled(function: PrimFunc, target: Target) -> PrimFunc:
    """``function`` with the default schedule, or as it was with the attribute ``UNSCHEDULED``."""
    try:
        schedule = Schedule(IRModule({"main": function}))
        result = with_stack_memory(_apply(schedule, target).mod["main"])
    except (RuntimeError, ValueError) as error:  # ScheduleError is a RuntimeError, as all errors of TVM's analyses are
        return function.with_attr(UNSCHEDULED, str(error).strip().splitlines()[-1])
    return result.with_attr(SCHEDULED, True)


def _apply(schedule: Schedule, target: Target) -> Schedule:
    if not is_plain(schedule):
        raise ValueError("calls a library, or holds a nest that is not one store in parallel and reduction loops")
    _inline(schedule)
    across = []
    for block in nests(schedule):
        if is_reduction(schedule, block):
            if reduces_neighbours(schedule, block):
                _add_partial_results(schedule, block)
            else:
                across.append(block)
    schedule, rows = _row_by_row(schedule, across)
    used = [b for b in nests(schedule) if is_output(schedule, b) or schedule.get_consumers(b)]
    sums = [(block, _vectorize(schedule, block, rows, target.lanes)) for block in used]
    if target.threads > 1:
        _parallelize(schedule)
    for block, loop in sums:  # last, as a reduction without its initialization is none to TVM
        if loop is not None:
            schedule.decompose_reduction(block, loop)
    return schedule


def _inline(schedule: Schedule) -> None:
    """Consumers first, so that a value read by several nests that end up in one is read by one."""
    for block in reversed(nests(schedule)):
        if is_reduction(schedule, block) or is_output(schedule, block):
            continue
        consumers = schedule.get_consumers(block)
        if len(consumers) != 1:
            continue
        repeated = trip_count(schedule, consumers[0]) > trip_count(schedule, block)
        if not repeated or is_cheap(schedule.get(block).body.value):
            _attempt(schedule.compute_inline, block)


def _attempt(primitive: Callable[..., Any], *args: Any) -> bool:
    """Applies a primitive that TVM may refuse; a refusal leaves the schedule as it was."""
    try:
        primitive(*args)
    except ScheduleError:
        return False
    return True


def _add_partial_results(schedule: Schedule, block: Block) -> None:
    """Splits a reduction over k into a vector of reductions over every ``width``-th k, and one over the vector.

    The width is not the target's: the order of a sum of floats would then be, and so its last bits.
    """
    *_, loop = own_loops(schedule, block)[1]
    (extent,) = extents(schedule, [loop])
    width = 2 * _SUMS if extent % (2 * _SUMS) == 0 and extent >= 8 * _SUMS else vector_factor(extent, _SUMS)
    if width is None or extent <= _SUMS:
        return
    _, inner = schedule.split(loop, [None, width])
    _attempt(schedule.rfactor, inner, -1)


def _row_by_row(schedule: Schedule, across: list[Block]) -> tuple[Schedule, int]:
    """Computes all nests under the outer loops of the last one, as many of them as repeat no work.

    Returns the schedule and the number of these loops, 0 if there are none. The reductions ``across`` rows each keep a
    loop over neighbouring results for themselves: their vector.
    """
    *producers, last = nests(schedule)
    if not producers or not all(schedule.get_consumers(block) for block in producers):
        return schedule, 0
    work = [trip_count(schedule, block) for block in producers]
    for depth in range(len(own_loops(schedule, last)[0]), 0, -1):
        trial = schedule.copy()
        row = trial.get_loops(last)[depth - 1]
        if (
            all(_attempt(trial.compute_at, block, row) for block in reversed(producers))
            and [trip_count(trial, block) for block in producers] == work
            and all(own_loops(trial, block, depth)[0] for block in across)
        ):
            _keep_rows_on_stack(trial, producers, depth)
            return trial, depth
    return schedule, 0


def _keep_rows_on_stack(schedule: Schedule, producers: list[Block], depth: int) -> None:
    for block in producers:
        elements = prod(extents(schedule, schedule.get_loops(block)[depth:]))
        if elements * 4 <= _STACK_ROW_BYTES:
            schedule.set_scope(block, 0, "local")


def _vectorize(schedule: Schedule, block: Block, rows: int, lanes: int) -> Loop | None:
    """Answers with the loop before which the vectors of a reduction must be initialized."""
    parallel, reduced = own_loops(schedule, block, rows)
    if not parallel or (reduced and reduces_neighbours(schedule, block)):
        return None
    loop = parallel[-1]
    (extent,) = extents(schedule, [loop])
    width = vector_factor(extent, lanes)
    if width is None:
        return None
    outer, vector = schedule.split(loop, [None, width]) if width < extent else (None, loop)
    if reduced:  # sums of neighbouring results, in one register while the reduction runs
        schedule.reorder(*reduced, vector)
    elif outer is not None and not rows:
        _tile_transpose(schedule, block, outer, vector, lanes)
    schedule.vectorize(vector)
    return reduced[0] if reduced else None


def _tile_transpose(schedule: Schedule, block: Block, outer: Loop, vector: Loop, lanes: int) -> None:
    """Square tiles where neighbours are read along another loop than they are written, to use cache lines up."""
    loop = loop_over_neighbours(schedule, block)
    if loop is None or schedule.get(loop).same_as(schedule.get(vector)):
        return
    (extent,) = extents(schedule, [loop])
    width = vector_factor(extent, lanes)
    if width is not None:
        _, inner = schedule.split(loop, [None, width])
        schedule.reorder(outer, inner, vector)


def _parallelize(schedule: Schedule) -> None:
    """The outer loops of every large nest become one parallel loop."""
    for block in nests(schedule):
        loops = outer_loops(schedule, block)
        if loops and trip_count(schedule, block) >= _PARALLEL_FROM:
            _attempt(schedule.parallel, schedule.fuse(*loops))
