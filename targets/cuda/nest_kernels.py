"""Kernels of loop nests: whole functions that TVM made of operators, in as few launches as their data allow.

An element-by-element nest is computed where it is read, so a chain of them is one kernel; on a GPU it costs less to
compute a value again than to store it and launch another kernel. A reduction is computed where it is read, too, if each
of its results is read by one row of what is made: a softmax or a normalization is one kernel, some threads for each
row. Any other reduction is a kernel of its own, and a sum of products is tiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from qcompile.targets.cuda.nest_products import product_kernel
from qcompile.targets.cuda.nest_reads import Reads
from qcompile.targets.cuda.nest_rows import Rows, Step, each_kernel, find_rows, row_kernel
from qcompile.targets.cuda.nests import Buffer, Nest, shape_of_buffer
from qcompile.targets.cuda.storage import Storage, plain

_ALONE = 1 << 14  # elements that one row of threads may make by itself


def steps_of(
    nests: Sequence[Nest], storages: Mapping[Buffer, Storage], outputs: Sequence[Buffer]
) -> tuple[list[Step], dict[Buffer, Storage]]:
    """The launches that a function consists of, and where they leave what is made in between.

    storages: of its parameters, ``outputs`` among them.
    """
    made = {nest.buffer: nest for nest in nests}
    known, apart = dict(storages), set(outputs)
    while True:
        known |= {b: plain(shape_of_buffer(b), made[b].dtype) for b in apart if b not in known}
        found = _try(nests, known, apart)
        if isinstance(found, list):
            return found, {b: s for b, s in known.items() if b not in storages}
        apart.add(found)


def _try(nests: Sequence[Nest], known: Mapping[Buffer, Storage], apart: set[Buffer]) -> list[Step] | Buffer:
    """The launches, or a reduction that must be one of its own."""
    inlined = {nest.buffer: nest for nest in nests if nest.buffer not in apart}
    steps = []
    for nest in nests:
        if nest.buffer not in apart:
            continue
        out = known[nest.buffer]
        rows = find_rows(nest, Reads(known, inlined), out)
        if not isinstance(rows, Rows):
            return rows
        if _starves(nest, rows):
            return rows.reductions[-1][0].buffer
        reads = Reads(known, inlined)
        kernel = product_kernel(nest, rows, reads, out)
        if kernel is None:
            reads, reduces = Reads(known, inlined), nest.reduced or rows.reductions
            kernel = row_kernel(nest, rows, reads, out) if reduces else each_kernel(nest, reads, out)
        steps.append(Step(kernel, tuple(reads.used), nest.buffer))
    return steps


def _starves(nest: Nest, rows: Rows) -> bool:
    """Whether so few rows would make so much that most of a GPU had nothing to do."""
    if nest.reduced or not rows.reductions:
        return False
    count = prod(rows.reductions[-1][0].extents)
    return prod(nest.extents) > _ALONE * count
