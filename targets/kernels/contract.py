"""The register-tiled loop nest of every dense reduction: convolution and matmul, on codes and in float32."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T

from qcompile.ops import Epilogue
from qcompile.targets.instructions import Dot
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.reduction import Reduction, Side
from qcompile.targets.kernels.tiling import Tile
from qcompile.targets.storage import BLOCK

_PARALLEL_MACS = 200_000  # multiply-adds below which waking a second thread costs more than it saves


class Contraction:
    """Emits the loop nest of one ``Reduction``.

    Its buffers: x, weight (``reduction.pack``), bias (int32 or float32, ``pad_channels``), multiplier (float32, integer
    kernels only), residual (if the reduction has one), y. ``dot`` is None in float32.
    """

    def __init__(
        self,
        reduction: Reduction,
        tile: Tile,
        lanes: int,
        threads: int,
        dot: Dot | None,
        epilogue: Epilogue,
        bounds: tuple[int, int] | None,
        exact_rows: bool,
    ):
        """exact_rows: the output is a plain matrix, where a vector may not run over the end of its row."""
        self.r, self.tile, self.lanes, self.threads, self.dot = reduction, tile, lanes, threads, dot
        self.epilogue, self.bounds, self.exact_rows = epilogue, bounds, exact_rows
        self.vectors = -(-reduction.outputs // self.lanes)  # of a group

    def emit(self, buffers: dict[str, b.Buffer]) -> None:
        """buffers: x, weight, bias, multiplier (integer), residual (if any), y."""
        self.buffers = buffers
        r, tile = self.r, self.tile
        macs = r.batch * r.height * r.width * r.groups * r.outputs * r.steps * r.group
        parallel = self.threads > 1 and macs > _PARALLEL_MACS
        for v0, vectors, channel_tiles in b.tiles(self.vectors, tile.vectors):
            for y0, rows, row_tiles in b.tiles(r.height, tile.rows):
                # One loop over all tiles of this size, so that threads share it evenly whichever extent is large.
                split_columns = r.height == 1 and parallel
                column_parts = b.tiles(r.width, tile.columns)
                if split_columns:
                    for x0, columns, column_tiles in column_parts:
                        self._walk(
                            parallel,
                            (v0, vectors, channel_tiles),
                            (x0, columns, column_tiles),
                            self._one_column(y0, rows),
                        )
                else:
                    self._walk(
                        parallel, (v0, vectors, channel_tiles), (y0, rows, row_tiles), self._columns(column_parts)
                    )

    def _walk(
        self,
        parallel: bool,
        channels: tuple[int, int, int],
        pixels: tuple[int, int, int],
        body: Callable[[b.Index, b.Index, int, b.Index, int], None],
    ) -> None:
        """Batch x group x channel tile x pixel tile as one loop, in the order that the tile asks for."""
        v0, vectors, channel_tiles = channels
        p0, size, pixel_tiles = pixels
        outer = self.r.batch * self.r.groups
        with b.loop(outer * channel_tiles * pixel_tiles, parallel) as i:
            if self.tile.channels_outer:
                pixel, rest = i % pixel_tiles, i // pixel_tiles
                channel, rest = rest % channel_tiles, rest // channel_tiles
            else:
                channel, rest = i % channel_tiles, i // channel_tiles
                pixel, rest = rest % pixel_tiles, rest // pixel_tiles
            group, n = rest % self.r.groups, rest // self.r.groups
            vector = group * self.vectors + v0 + channel * vectors
            body(n, group, vector, vectors, p0 + pixel * size, size)

    def _columns(self, parts: list[tuple[int, int, int]]):
        def body(n, group, vector, vectors, y, rows):
            for x0, columns, count in parts:
                with b.loop(count) as i:
                    self._tile(n, group, vector, vectors, y, rows, x0 + i * columns, columns)

        return body

    def _one_column(self, y: int, rows: int):
        def body(n, group, vector, vectors, x, columns):
            self._tile(n, group, vector, vectors, y, rows, x, columns)

        return body

    def _tile(self, n, group, vector, vectors: int, y, rows: int, x, columns: int) -> None:
        lanes, r = self.lanes, self.r
        dtype = "int32" if self.dot else "float32"
        pixels = [(dy, dx) for dy in range(rows) for dx in range(columns)]
        acc = b.registers(len(pixels) * vectors * lanes, dtype)

        def slot(p: int, v: int) -> int:
            return (p * vectors + v) * lanes

        for v in range(vectors):
            start = b.bind(b.load(self.buffers["bias"], (vector + v) * lanes, lanes))
            for p in range(len(pixels)):
                b.store(acc, slot(p, v), start, lanes)

        base = _corner(r.x, n, y, x) + group * r.group_stride
        stream = vector * (r.steps * lanes * r.group)
        for segment in r.segments:
            self._segment(
                segment,
                base + segment.start,
                stream,
                [dy * r.x.row + dx * r.x.pixel for dy, dx in pixels],
                vectors,
                acc,
                slot,
            )
            stream = stream + segment.length * vectors * lanes * r.group

        for v in range(vectors):
            m = b.bind(b.load(self.buffers["multiplier"], (vector + v) * lanes, lanes)) if self.dot else None
            for p, (dy, dx) in enumerate(pixels):
                value = b.load(acc, slot(p, v), lanes)
                if m is not None:
                    value = b.rounded(b.cast("float32", value, lanes) * m, lanes)
                other = None
                if r.residual is not None:
                    other = b.load(
                        self.buffers["residual"], self._offset(r.residual, n, group, vector + v, y + dy, x + dx), lanes
                    )
                result = b.finish(value, self.epilogue, self.bounds, lanes, other)
                self._store(self._offset(r.out, n, group, vector + v, y + dy, x + dx), result, vector + v)

    def _segment(self, segment, base, stream, offsets: list[int], vectors: int, acc, slot) -> None:
        lanes, group = self.lanes, self.r.group
        step_size = vectors * lanes * group

        def nest(loops: tuple[tuple[int, int], ...], base, stream) -> None:
            if loops:
                (extent, stride), *inner = loops
                inside = segment.steps * step_size
                for e, _ in inner:
                    inside *= e
                with b.loop(extent) as i:
                    nest(tuple(inner), base + i * stride, stream + i * inside)
                return
            for step in range(segment.steps):
                weights = [self._weight(stream + step * step_size + v * lanes * group) for v in range(vectors)]
                for p, offset in enumerate(offsets):
                    operand = self._operand(base + offset + step * group)
                    for v in range(vectors):
                        b.store(
                            acc,
                            slot(p, v),
                            self._accumulate(b.load(acc, slot(p, v), lanes), operand, weights[v]),
                            lanes,
                        )

        nest(segment.loops, base, stream)

    def _weight(self, offset) -> Expr:
        vector = b.load(self.buffers["weight"], offset, self.lanes * self.r.group)
        return b.bind(self.dot.widen(vector) if self.dot else vector)

    def _operand(self, offset) -> Expr:
        if self.dot:
            return b.bind(self.dot.spread(b.load(self.buffers["x"], offset, self.r.group)))
        return b.bind(tirx.Broadcast(self.buffers["x"][offset], self.lanes))

    def _accumulate(self, acc: Expr, operand: Expr, weight: Expr) -> Expr:
        return self.dot.accumulate(acc, operand, weight) if self.dot else acc + operand * weight

    def _offset(self, side: Side, n, group, vector, y, x) -> b.Index:
        """Element of a channel vector at a pixel. Groups are whole blocks, so a vector's number tells its block."""
        per_block = BLOCK // self.lanes
        return _corner(side, n, y, x) + vector // per_block * side.block + vector % per_block * self.lanes

    def _store(self, offset, value: Expr, vector) -> None:
        tail = self.r.outputs % self.lanes
        if not (self.exact_rows and tail):
            b.store(self.buffers["y"], offset, value, self.lanes)
            return
        # A plain row ends inside its last vector: that one goes out element by element.
        value = b.bind(value)

        def whole() -> None:
            b.store(self.buffers["y"], offset, value, self.lanes)

        def part() -> None:
            last = b.registers(self.lanes, self.epilogue.out.dtype if self.epilogue.out else "float32")
            b.store(last, 0, value, self.lanes)
            with T.serial(0, tail) as i:
                T.buffer_store(self.buffers["y"], last[i], [offset + i])

        if isinstance(vector, int):
            (part if vector == self.vectors - 1 else whole)()
            return
        with T.If(vector < self.vectors - 1):
            with T.Then():
                whole()
            with T.Else():
                part()


def _corner(side: Side, n, y, x) -> b.Index:
    return side.origin + n * side.batch + y * side.row + x * side.pixel
