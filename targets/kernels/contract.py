"""The register-tiled loop nest of every dense reduction: convolution and matmul, on codes and in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import gcd

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from qcompile.ops import Epilogue
from qcompile.targets.instructions import Dot
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.parallel import worth_threads
from qcompile.targets.kernels.reduction import Reduction, Segment, Side, neighbours
from qcompile.targets.kernels.tiling import Tile
from qcompile.targets.kernels.unroll import REACH, hoisted, reach, unrolled
from qcompile.targets.storage import BLOCK


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector of output channels of a tile: its lanes, the dot product that fills them (None in float32).

    stored: lanes that are written; fewer where a plain row ends inside the vector.
    ahead: reduction steps of a pixel that are loaded at once, see ``Dot``; floats are, too, where vectors are short.
    """

    lanes: int
    dot: Dot | None
    stored: int
    ahead: int

    @property
    def sums(self) -> str:
        """The dtype of the accumulator."""
        return self.dot.sums if self.dot else "float32"


@dataclass(frozen=True, slots=True)
class Corner:
    """Where a tile begins: image, channel group, number of its first vector, output row and column."""

    n: b.Index
    group: b.Index
    vector: b.Index
    y: b.Index
    x: b.Index


class Contraction:
    """Emits the loop nest of one ``Reduction``.

    Its buffers: x, weight (``reduction.pack``), bias (int16, int32 or float32, ``pad_channels``), multiplier (float32,
    where weights are codes), residual (if the reduction has one), y.

    vector: all vectors of output channels but the last; last: the last one, which may be narrower.
    dtypes: of weight, and of the storages of residual and y.
    """

    def __init__(
        self,
        reduction: Reduction,
        tile: Tile,
        vector: Vector,
        last: Vector,
        threads: int,
        epilogue: Epilogue,
        dtypes: Mapping[str, str],
    ):
        self.dtypes = dtypes
        self.r, self.tile, self.vector, self.last, self.threads = reduction, tile, vector, last, threads
        self.epilogue = epilogue
        self.vectors = -(-reduction.outputs // vector.lanes)  # of a group

    def emit(self, buffers: dict[str, b.Buffer]) -> None:
        """buffers: x, weight, bias, multiplier (integer), residual (if any), y."""
        self.buffers = buffers
        r = self.r
        macs = r.batch * r.height * r.width * r.groups * r.outputs * r.steps * r.group
        lane_macs = self.vector.lanes * r.group
        parallel = worth_threads(self.threads, macs / (2 * lane_macs))
        columns = b.tiles(r.width, self.tile.columns)
        for first, vectors, count in self._channel_tiles():
            self.joint = self._joint(first, vectors, count)
            for y0, rows, row_tiles in b.tiles(r.height, self.tile.rows):
                if r.height == 1 and parallel:  # a matrix: threads share its rows, the pixels of the one image row
                    for x0, size, column_tiles in columns:
                        with self._walk(True, (first, len(vectors), count), column_tiles) as (n, group, vector, i):
                            self._tile(Corner(n, group, vector, y0, x0 + i * size), vectors, rows, size)
                    continue
                with self._walk(parallel, (first, len(vectors), count), row_tiles) as (n, group, vector, i):
                    for x0, size, column_tiles in columns:
                        with b.loop(column_tiles) as j:
                            corner = Corner(n, group, vector, y0 + i * rows, x0 + j * size)
                            self._tile(corner, vectors, rows, size)

    def _channel_tiles(self) -> list[tuple[int, list[Vector], int]]:
        """(number of the first vector, vectors of a tile, how many tiles); an odd last vector has a tile of its own."""
        tiles = [
            (first, [self.vector] * size, count) for first, size, count in b.tiles(self.vectors, self.tile.vectors)
        ]
        if self.last == self.vector:
            return tiles
        first, vectors, count = tiles.pop()
        if count > 1:
            tiles.append((first, vectors, count - 1))
        return [*tiles, (first + (count - 1) * len(vectors), [*vectors[:-1], self.last], 1)]

    @contextmanager
    def _walk(
        self, parallel: bool, channels: tuple[int, int, int], pixel_tiles: int
    ) -> Iterator[tuple[b.Index, b.Index, b.Index, b.Index]]:
        """Batch x group x channel tile x pixel tile as one loop, which threads share evenly whichever extent is large.

        channels: first vector, vectors a tile, tiles. Gives image, group, number of the tile's first vector, pixel
        tile; the innermost of the loops is the one that the tile asks for.
        """
        first, size, channel_tiles = channels
        with b.loop(self.r.batch * self.r.groups * channel_tiles * pixel_tiles, parallel) as i:
            if self.tile.channels_outer:
                pixel, rest = i % pixel_tiles, i // pixel_tiles
                channel, rest = rest % channel_tiles, rest // channel_tiles
            else:
                channel, rest = i % channel_tiles, i // channel_tiles
                pixel, rest = rest % pixel_tiles, rest // pixel_tiles
            group, n = rest % self.r.groups, rest // self.r.groups
            yield n, group, group * self.vectors + first + channel * size, pixel

    def _tile(self, at: Corner, vectors: list[Vector], rows: int, columns: int) -> None:
        r = self.r
        pixels = [(dy, dx) for dy in range(rows) for dx in range(columns)]
        offsets = [dy * r.x.row + dx * r.x.pixel for dy, dx in pixels]
        acc = self._begin(at, vectors, len(pixels))
        base = self._origin(r.x, at, 0, 0) + at.group * r.group_stride
        self._sum(at, base, offsets, vectors, acc)
        self._end(at, pixels, vectors, acc)

    def _begin(self, at: Corner, vectors: list[Vector], pixels: int) -> list[list[b.Buffer]]:
        """Accumulators [pixel][vector] that hold the biases."""
        acc = [[b.registers(v.lanes, v.sums) for v in vectors] for _ in range(pixels)]
        for j, v in enumerate(vectors):
            start = self._bias(at, j, v)
            for row in acc:
                b.store(row[j], 0, start, v.lanes)
        return acc

    def _end(self, at: Corner, pixels: list[tuple[int, int]], vectors: list[Vector], acc: list[list[b.Buffer]]) -> None:
        """The epilogue of all accumulators."""
        for j, v in self._joined(vectors):
            m = self._multiplier(at, j, v)
            for (dy, dx), row in zip(pixels, acc, strict=True):
                sums = [b.load(row[i], 0, vectors[i].lanes) for i in range(j, j + max(1, v.lanes // self.vector.lanes))]
                self._finish(at, dy, dx, j, v, b.joined(sums, v.lanes), m)

    def _bias(self, at: Corner, j: int, v: Vector) -> Expr:
        return b.first_sum(self.buffers["bias"], (at.vector + j) * self.vector.lanes, v.lanes, v.sums == "int32")

    def _multiplier(self, at: Corner, j: int, v: Vector) -> Expr | None:
        """Of integer weights."""
        if "multiplier" not in self.buffers:
            return None
        return b.bind(b.load(self.buffers["multiplier"], (at.vector + j) * self.vector.lanes, v.lanes))

    def _joint(self, first: int, vectors: list[Vector], count: int) -> int:
        """How many neighbouring vectors are finished together: those of a block, where that is worth it and tiles begin
        with blocks."""
        dot, per_block = self.vector.dot, BLOCK // self.vector.lanes
        if dot is None or dot.codes is None:
            return 1
        return gcd(first, per_block) if count == 1 else gcd(first, len(vectors), per_block)

    def _joined(self, vectors: list[Vector]) -> list[tuple[int, Vector]]:
        """(number in the tile, vector) of what is finished together."""
        lanes = self.joint * self.vector.lanes
        wide = replace(self.vector, lanes=lanes, stored=lanes)
        whole = sum(v.stored == self.vector.lanes for v in vectors) // self.joint  # the last one may be narrower
        rest = whole * self.joint
        return [(j, wide) for j in range(0, rest, self.joint)] + list(enumerate(vectors[rest:], rest))

    def _sum(
        self, at: Corner, base: b.Index, offsets: list[int], vectors: list[Vector], acc: list[list[b.Buffer]]
    ) -> None:
        """The whole reduction of a tile, added to its accumulators."""
        r = self.r
        stream = at.vector * (r.steps * self.vector.lanes * r.group)
        if hoisted(r, len(vectors), self.vector.dot):
            stream = b.bind(vectors[0].dot.opaque(stream))
        for segment in r.segments:
            self._reduce(segment, base + segment.start, stream, offsets, vectors, acc)
            stream = stream + segment.length * sum(v.lanes for v in vectors) * r.group

    def _reduce(
        self, segment: Segment, base: b.Index, stream: b.Index, offsets: list[int], vectors: list[Vector], acc: list
    ) -> None:
        """One segment of the reduction into the accumulators."""
        group = self.r.group
        size = sum(v.lanes for v in vectors) * group  # weights of one reduction step
        ahead = self._steps_a_load(vectors)
        dot = self.vector.dot
        loops, bodies = unrolled(segment, group, ahead)

        def nest(loops: tuple[tuple[int, int], ...], steps: int, base: b.Index, stream: b.Index) -> None:
            """steps: of one repeat of what lies around ``loops``."""
            if loops:
                (extent, stride), *inner = loops
                steps //= extent
                with b.loop(extent) as i:
                    nest(tuple(inner), steps, base + i * stride, stream + i * (steps * size))
                return
            for body in bodies:
                with b.loop(body.times) as i:
                    weights = stream + (i * len(body.starts) + body.step) * size
                    left = reach(len(body.starts) * size, dot)
                    for run in neighbours(body.starts, group, ahead):
                        if left < len(run) * size:
                            weights, left = b.bind(dot.opaque(weights)), REACH
                        left -= len(run) * size
                        at = [base + i * body.stride + (offset + run[0]) for offset in offsets]
                        self._steps(at, len(run), weights, vectors, acc, group - segment.missing)
                        weights = weights + len(run) * size

        nest(loops, segment.length, base, stream)

    def _steps_a_load(self, vectors: list[Vector]) -> int:
        """How many neighbouring steps of a pixel are loaded at once."""
        return min(v.ahead for v in vectors)

    def _steps(
        self, at: list[b.Index], count: int, weights: b.Index, vectors: list[Vector], acc: list, present: int
    ) -> None:
        """Some neighbouring steps of all pixels, whose first elements lie ``at``."""
        group = self.r.group
        size = sum(v.lanes for v in vectors) * group
        loaded: list[Expr] = []
        if count > 1:  # a whole vector, of which those behind the last step are not used
            elements = group * self._steps_a_load(vectors)
            loaded = [b.bind(b.load(self.buffers["x"], place, elements)) for place in at]
        for step in range(0, count, self._steps_a_product):
            steps = range(step, min(step + self._steps_a_product, count))
            vector_weights = [list(self._weights(vectors, weights + i * size)) for i in steps]
            for pixel, row in enumerate(acc):
                operands = [
                    self._picked(loaded[pixel], i) if loaded else self._spread(at[pixel], present) for i in steps
                ]
                if len(steps) == 1:
                    self._accumulate(operands[0], vectors, vector_weights[0], row)
                else:
                    self._accumulate_two(operands, vectors, vector_weights, row)

    @property
    def _steps_a_product(self) -> int:
        """How many steps ``Dot.accumulate_two`` takes, if the vectors' dot product has it."""
        dots = (self.vector.dot, self.last.dot)
        return 2 if all(dot is not None and dot.accumulate_two is not None for dot in dots) else 1

    def _weights(self, vectors: list[Vector], at: b.Index) -> Iterator[Expr]:
        """The weights of one reduction step, one by one; asks for the cache lines of those of a later one."""
        ahead = self.tile.prefetch * sum(v.lanes for v in vectors) * self.r.group
        item = np.dtype(str(self.buffers["weight"].dtype)).itemsize
        first = 0
        for v in vectors:
            weight = self._weight(v, at + first)
            if ahead and first * item % b.CACHE_LINE == 0:
                b.prefetch(self.buffers["weight"], at + (first + ahead))
            yield weight
            first += v.lanes * self.r.group

    def _weight(self, v: Vector, offset: b.Index) -> Expr:
        vector = b.load(self.buffers["weight"], offset, v.lanes * self.r.group)
        return b.bind(v.dot.widen(vector) if v.dot else b.decoded(vector, self.dtypes["weight"], v.lanes))

    def _spread(self, offset: b.Index, present: int = 0) -> Callable[[Vector], Expr]:
        """One step of a pixel as the operand of a vector. present: elements that may be read, if not all of them."""

        def operand(v: Vector) -> Expr:
            elements = b.load_part(self.buffers["x"], offset, self.r.group, present or self.r.group)
            return v.dot.spread(elements) if v.dot else tirx.Broadcast(elements, v.lanes)

        return operand

    def _picked(self, elements: Expr, step: int) -> Callable[[Vector], Expr]:
        """The same of one of several steps that were loaded at once."""
        if self.vector.dot is not None:
            return lambda v: v.dot.pick(elements, step)
        element = tirx.Shuffle([elements], [tirx.IntImm("int32", step)])  # LLVM makes it an operand: fmla v, v, v.s[i]
        return lambda v: tirx.Broadcast(element, v.lanes)

    def _accumulate(
        self, operand_of: Callable[[Vector], Expr], vectors: list[Vector], weights: list[Expr], row: list[b.Buffer]
    ) -> None:
        """One reduction step of one pixel; its operand is made once for all vectors of a width."""
        operands: dict[int, Expr] = {}
        for v, weight, acc in zip(vectors, weights, row, strict=True):
            if v.lanes not in operands:
                operands[v.lanes] = b.bind(operand_of(v))
            old, operand = b.load(acc, 0, v.lanes), operands[v.lanes]
            b.store(acc, 0, v.dot.accumulate(old, operand, weight) if v.dot else old + operand * weight, v.lanes)

    def _accumulate_two(
        self,
        operands_of: Sequence[Callable[[Vector], Expr]],
        vectors: list[Vector],
        weights: list[list[Expr]],
        row: list[b.Buffer],
    ) -> None:
        """Two reduction steps of one pixel, by ``Dot.accumulate_two``: vectors have the same width."""
        operands = [b.bind(operand_of(vectors[0])) for operand_of in operands_of]
        for v, first, second, acc in zip(vectors, *weights, row, strict=True):
            b.store(acc, 0, v.dot.accumulate_two(b.load(acc, 0, v.lanes), operands, [first, second]), v.lanes)

    def _finish(self, at: Corner, dy: int, dx: int, j: int, v: Vector, value: Expr, m: Expr | None) -> None:
        """The epilogue of one accumulator, and its store."""
        value = b.scaled(value, m, v.lanes)
        other = None
        if self.r.residual is not None:
            place = self._place(self.r.residual, at, dy, dx, j)
            other = b.real(b.load(self.buffers["residual"], place, v.lanes), self.dtypes["residual"], v.lanes)
        result = b.finish(value, self.epilogue, v.lanes, other, v.dot)
        result = b.stored(result, self.dtypes["y"], v.lanes, v.dot.narrow if v.dot else None)
        place = self._place(self.r.out, at, dy, dx, j)
        if v.stored == v.lanes:
            b.store(self.buffers["y"], place, result, v.lanes)
            return
        part = b.registers(v.lanes, str(self.buffers["y"].dtype))
        b.store(part, 0, result, v.lanes)
        for lane in range(v.stored):
            T.buffer_store(self.buffers["y"], part[lane], [place + lane])

    def _origin(self, side: Side, at: Corner, dy: int, dx: int) -> b.Index:
        return side.origin + at.n * side.batch + (at.y + dy) * side.row + (at.x + dx) * side.pixel

    def _place(self, side: Side, at: Corner, dy: int, dx: int, j: int) -> b.Index:
        """The first element of a tile's j-th vector at a pixel. Groups are whole blocks: its number tells its block."""
        vector, per_block = at.vector + j, BLOCK // self.vector.lanes
        channel = vector // per_block * side.block + vector % per_block * self.vector.lanes
        return self._origin(side, at, dy, dx) + channel
