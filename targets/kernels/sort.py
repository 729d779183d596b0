"""Sorting along one axis: a stable merge sort of positions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.targets.kernels.builder import bind, cast, loop, registers, store


def scratch_elements(length: int) -> int:
    """Of the last argument of ``sort``: two lists of positions."""
    return 2 * length


def sort(
    shape: Sequence[int], axis: int, dtype: str, keep: int, descending: bool, values: bool, positions: str
) -> tirx.PrimFunc:
    """The first ``keep`` elements in order along ``axis``; of equal ones, that with the lower position comes first.

    x (*shape) of ``dtype``. Then results, whose extent along ``axis`` is ``keep``: y of ``dtype`` if ``values``, and
    where in x they stand, of the integer type ``positions`` unless that is "". Last scratch (2 * length), int32.
    """
    outer, length, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    cut = (*shape[:axis], keep, *shape[axis + 1 :])
    results = [("y", dtype)] * values + [("where", positions)] * bool(positions)

    def flat(buffer: tirx.Buffer, extents: Sequence[int], of: str) -> tirx.Buffer:
        return T.decl_buffer((prod(extents),), of, data=buffer.data)

    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("sort")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
        arg = T.arg("x", T.buffer(shape, dtype))
        outs = [T.arg(name, T.buffer(cut, of)) for name, of in results]
        order = T.arg("scratch", T.buffer((scratch_elements(length),), "int32"))
        x, ys = flat(arg, shape, dtype), [flat(out, cut, of) for out, (_, of) in zip(outs, results, strict=True)]
        with loop(outer) as o, loop(inner) as i:

            def at(position: tirx.Expr, extent: int = length, o=o, i=i) -> tirx.Expr:
                return (o * extent + position) * inner + i

            with loop(length) as position:
                store(order, position, cast("int32", position, 1), 1)
            last = _merge(lambda position: x[at(position)], order, length, descending)
            with loop(keep) as rank:
                position = bind(order[last + rank])
                for y, (name, of) in zip(ys, results, strict=True):
                    store(y, at(rank, keep), x[at(position)] if name == "y" else cast(of, position, 1), 1)
    return builder.get().without_attr("global_symbol")


def _merge(value, order: tirx.Buffer, length: int, descending: bool) -> int:
    """Sorts order[:length] by value(position), from runs of one to one run; returns where in ``order`` that starts.

    A list of runs in one half of ``order`` becomes one of runs twice as long in the other half.
    """
    rounds = (length - 1).bit_length()
    next_of = registers(2, "int32")  # of the two runs being merged
    with loop(rounds) as number:
        source = bind((number % 2) * length)
        target, run = bind(length - source), bind(tirx.const(1, "int32") << number)
        with loop(length) as rank:
            begins = bind((rank & (2 * run - 1)) == 0)
            left = bind(tirx.Select(begins, rank, next_of[0]))
            middle = bind(tirx.Min(rank - (rank & (2 * run - 1)) + run, length))
            right = bind(tirx.Select(begins, middle, next_of[1]))
            end = bind(tirx.Min(middle + run, length))
            # Positions past a run's end are read, not used: they are clipped to what is there.
            lefts = bind(order[source + tirx.Min(left, length - 1)])
            rights = bind(order[source + tirx.Min(right, length - 1)])
            a, b = bind(value(lefts)), bind(value(rights))
            sooner = a < b if descending else b < a
            takes_right = bind(tirx.any(left >= middle, tirx.all(right < end, sooner)))
            store(order, target + rank, tirx.Select(takes_right, rights, lefts), 1)
            store(next_of, 0, tirx.Select(takes_right, left, left + 1), 1)
            store(next_of, 1, tirx.Select(takes_right, right + 1, right), 1)
    return (rounds % 2) * length
