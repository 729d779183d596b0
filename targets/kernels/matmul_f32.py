"""float32 matrix product with numpy broadcasting of batch dimensions: register tiles over a packed panel of B.

``C[m, n] = sum_k A[m, k] * B[k, n]``. A tile is ``rows`` scalars of A times ``vectors`` vectors of B, accumulated in
registers over all of k; products are contracted into FMAs (float32 here means float tolerance, not bits).

Where several row tiles read one panel of B (all its rows, ``vectors`` vectors wide), the panel is first copied into
contiguous memory: in place, its rows lie N apart, on different pages and often in the same cache sets.
A panel narrower than a vector is read, computed and written with vectors of just that width: LLVM splits them, and
nothing outside a tensor is ever touched.

Few rows times a transposed B are dot products of neighbouring elements, and vectors run along k instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, prod

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from qcompile.targets.kernels.builder import Buffer, Index, bind, load, loop, registers, splat, store, tiles
from qcompile.targets.kernels.parallel import worth_threads
from qcompile.targets.target import Target

DTYPE = "float32"
_PACK_FROM = 3  # row tiles that make copying a panel pay
_MAX_VECTORS = 8  # wide panels for few rows: 512 neighbouring bytes of each row of B


@dataclass(frozen=True, slots=True)
class MatmulTile:
    """rows: rows of A a tile. vectors: vectors of B, and of the result, a row. packed: panels of B are copied first.

    A transposed B that is not packed is read along k: ``vectors`` are then columns of the result.
    """

    rows: int
    vectors: int
    packed: bool


def default_tile(m: int, n: int, target: Target, b_transposed: bool) -> MatmulTile:
    """Fills the registers: ``rows * vectors`` accumulators, ``vectors`` of B and two for values of A on their way."""
    free = target.vector_registers - 2
    most = free // 2 - 1
    row_tiles = -(-m // most)
    rows = -(-m // row_tiles)
    if b_transposed and row_tiles == 1:
        side = isqrt(free)  # side * side sums, side vectors of B, one of A
        return MatmulTile(min(m, side), min(n, side), False)
    vectors = max(1, min(free // (rows + 1), _MAX_VECTORS, -(-n // target.lanes)))
    return MatmulTile(rows, vectors, b_transposed or row_tiles >= _PACK_FROM)


def matmul_f32(
    m: int,
    k: int,
    n: int,
    batch_shape_a: Sequence[int],
    batch_shape_b: Sequence[int],
    b_transposed: bool,
    target: Target,
    tile: MatmulTile | None = None,
) -> tirx.PrimFunc:
    """``a (*batch_a, m, k) @ b (*batch_b, k, n) -> c (*batch, m, n)``; b is (*batch_b, n, k) if ``b_transposed``.

    All float32, row-major; the batch shapes broadcast as numpy's do (ValueError if they cannot).
    """
    batch = np.broadcast_shapes(tuple(batch_shape_a), tuple(batch_shape_b))
    shapes = ((*batch_shape_a, m, k), (*batch_shape_b, *((n, k) if b_transposed else (k, n))), (*batch, m, n))
    if prod(batch_shape_b) == 1 and prod(batch_shape_a) == prod(batch):
        m, batch, batch_shape_a, batch_shape_b = m * prod(batch), (), (), ()  # one B: the batch is more rows
    tile = tile or default_tile(m, n, target, b_transposed)
    dots = b_transposed and not tile.packed
    panels = tiles(n, tile.vectors if dots else tile.vectors * target.lanes)
    fork = worth_threads(target.threads, prod(batch) * m * k * n / (2 * target.lanes))
    parallel_batch = fork and prod(batch) >= target.threads
    parallel_panels = fork and not parallel_batch
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("matmul_f32")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
        args = [T.arg(name, T.buffer(shape, DTYPE)) for name, shape in zip("abc", shapes, strict=True)]
        a, b, c = (T.decl_buffer((prod(shape),), DTYPE, data=arg.data) for arg, shape in zip(args, shapes, strict=True))
        with loop(prod(batch), parallel_batch) as index:
            a_matrix = _Matrix(a, _matrix_index(index, batch, batch_shape_a) * (m * k), k, 1)
            b_start = _matrix_index(index, batch, batch_shape_b) * (k * n)
            b_matrix = _Matrix(b, b_start, *((1, k) if b_transposed else (n, 1)))
            c_matrix = _Matrix(c, index * (m * n), n, 1)
            for start, width, count in panels:
                with loop(count, parallel_panels) as panel:
                    column = start + panel * width
                    b_panel = _Matrix(b, b_matrix.at(0, column), b_matrix.row, b_matrix.column)
                    if tile.packed:
                        b_panel = _pack(b_panel, k, width, target.lanes)
                    for row_start, rows, row_tiles in tiles(m, tile.rows):
                        with loop(row_tiles) as row_tile:
                            row = row_start + row_tile * rows
                            a_rows = _Matrix(a, a_matrix.at(row, 0), k, 1)
                            c_tile = _Matrix(c, c_matrix.at(row, column), n, 1)
                            (_emit_dots if dots else _emit_tile)(a_rows, b_panel, c_tile, rows, width, k, target.lanes)
    return builder.get().without_attr("global_symbol")


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A matrix inside a flat buffer: where it starts, elements from row to row and from column to column."""

    buffer: Buffer
    start: Index
    row: int
    column: int

    def at(self, i: Index, j: Index) -> Index:
        return self.start + i * self.row + j * self.column


def _matrix_index(index: Index, batch: Sequence[int], own: Sequence[int]) -> Index:
    """Which matrix of an operand with batch shape ``own`` belongs to a flat index into the broadcast batch."""
    offset: Index = 0
    step = own_step = 1
    padded = (1,) * (len(batch) - len(own)) + tuple(own)
    for extent, mine in zip(reversed(batch), reversed(padded), strict=True):
        if mine > 1:
            offset = offset + index // step % extent * own_step
        step, own_step = step * extent, own_step * mine
    return offset


def _vectors(width: int, lanes: int) -> list[tuple[int, int]]:
    """(first column, lanes) of the vectors that cover a panel; the last one is as narrow as it must be."""
    return [(start, min(lanes, width - start)) for start in range(0, width, lanes)]


def _pack(b: _Matrix, k: int, width: int, lanes: int) -> _Matrix:
    """A panel of B, copied row after row."""
    panel = T.alloc_buffer((k * width,), DTYPE)
    if b.column == 1:
        with loop(k) as row:
            for start, size in _vectors(width, lanes):
                store(panel, row * width + start, load(b.buffer, b.at(row, start), size), size)
    else:  # in blocks of rows that stay in the first-level cache until all their columns are written
        for start, rows, blocks in tiles(k, lanes):
            with loop(blocks) as block, loop(width) as column:
                for i in range(rows):
                    row = start + block * rows + i
                    store(panel, row * width + column, load(b.buffer, b.at(row, column), 1), 1)
    return _Matrix(panel, 0, width, 1)


def _emit_tile(a: _Matrix, b: _Matrix, c: _Matrix, rows: int, width: int, k: int, lanes: int) -> None:
    """``c[:rows, :width] = a[:rows] @ b[:, :width]``; unrolled over both, so that LLVM keeps the sums in registers."""
    vectors = _vectors(width, lanes)
    sums = registers(rows * width, DTYPE)
    for i in range(rows):
        for start, size in vectors:
            store(sums, i * width + start, splat(0.0, DTYPE, size), size)
    with loop(k) as step:
        b_row = [bind(load(b.buffer, b.at(step, start), size)) for start, size in vectors]
        for i in range(rows):
            scalar = bind(load(a.buffer, a.at(i, step), 1))
            for (start, size), b_vector in zip(vectors, b_row, strict=True):
                factor = tirx.Broadcast(scalar, size) if size > 1 else scalar
                at = i * width + start
                store(sums, at, load(sums, at, size) + factor * b_vector, size)
    for i in range(rows):
        for start, size in vectors:
            store(c.buffer, c.at(i, start), load(sums, i * width + start, size), size)


def _emit_dots(a: _Matrix, b: _Matrix, c: _Matrix, rows: int, columns: int, k: int, lanes: int) -> None:
    """``c[:rows, :columns]``, each a dot product along k: ``lanes`` partial sums, added up in halves."""
    sums = registers(rows * columns * lanes, DTYPE)
    for at in range(0, rows * columns * lanes, lanes):
        store(sums, at, splat(0.0, DTYPE, lanes), lanes)
    for start, size, count in tiles(k, lanes):
        with loop(count) as step:
            along = start + step * size
            b_rows = [bind(load(b.buffer, b.at(along, j), size)) for j in range(columns)]
            for i in range(rows):
                a_row = bind(load(a.buffer, a.at(i, along), size))
                for j, b_row in enumerate(b_rows):
                    at = (i * columns + j) * lanes
                    store(sums, at, load(sums, at, size) + a_row * b_row, size)
    for i in range(rows):
        for j in range(columns):
            at, half = (i * columns + j) * lanes, lanes // 2
            while half:
                store(sums, at, load(sums, at, half) + load(sums, at + half, half), half)
                half //= 2
            store(c.buffer, c.at(i, j), load(sums, at, 1), 1)
