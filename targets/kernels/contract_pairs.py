"""The loop nest of dense reductions by matrix products: pairs of pixels times pairs of output channels.

An instruction adds ``sum_k a[i][k] w[j][k]`` of two pixels i and two channels j to four accumulators. So the sums of
two pixels p, q and a vector of four channels lie in two registers::

    p: c0 c1 c2 c3         first:  p c0, p c1, q c0, q c1
    q: c0 c1 c2 c3   ->    second: p c2, p c3, q c2, q c3

and the operand of both is the codes of p followed by those of q. The last pixel of an odd number is its own partner.
Results become codes as they lie, where those of several vectors do so together: then two of them are one 16-bit word,
and p's and q's words take turns. Else the two pixels are parted first.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr

from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.contract import Contraction, Corner, Vector

_HALVES = ((0, 1), (2, 3))  # of the channels of a vector
_PARTED = ((0, 1, 4, 5), (2, 3, 6, 7))  # from the halves of a pair to its pixels


class PairedContraction(Contraction):
    """A ``Contraction`` whose dot products take two pixels (``Dot.pixels``); accumulators are [pair][half vector]."""

    def _begin(self, at: Corner, vectors: list[Vector], pixels: int) -> list[list[b.Buffer]]:
        self.pairs = [(p, min(p + 1, pixels - 1)) for p in range(0, pixels, 2)]
        acc = [[b.registers(4, "int32") for _ in vectors for _ in range(2)] for _ in self.pairs]
        for j, v in enumerate(vectors):
            bias = self._bias(at, j, v)
            for half, (c, d) in enumerate(_HALVES):
                start = b.bind(_shuffle([bias], [c, d, c, d]))
                for row in acc:
                    b.store(row[2 * j + half], 0, start, 4)
        return acc

    def _sum(
        self, at: Corner, base: b.Index, offsets: list[int], vectors: list[Vector], acc: list[list[b.Buffer]]
    ) -> None:
        self.apart = [offsets[q] - offsets[p] for p, q in self.pairs]
        super()._sum(at, base, offsets, vectors, acc)

    def _steps(
        self, at: list[b.Index], count: int, weights: b.Index, vectors: list[Vector], acc: list, present: int
    ) -> None:
        group = self.r.group
        size = sum(v.lanes for v in vectors) * group
        both = zip(self.pairs, self.apart, strict=True)
        pairs = [self._operands(at[p], at[q], apart, count) for (p, q), apart in both]
        for step in range(count):
            for j, (v, weight) in enumerate(zip(vectors, self._weights(vectors, weights + step * size), strict=True)):
                for half in range(2):
                    channels = b.bind(_shuffle([weight], range(half * 2 * group, (half + 1) * 2 * group)))
                    for operands, row in zip(pairs, acc, strict=True):
                        sums = row[2 * j + half]
                        b.store(sums, 0, v.dot.accumulate(b.load(sums, 0, 4), operands[step], channels), 4)

    def _operands(self, p: b.Index, q: b.Index, apart: int, count: int) -> list[Expr]:
        """Both pixels' codes of each of ``count`` neighbouring steps. apart: elements between the pixels."""
        group, elements = self.r.group, self.r.group * count
        if apart == elements == 2 * group:  # neighbours in memory: one instruction loads and parts them (ld2)
            words = b.bind(tirx.reinterpret("int64x4", b.load(self.buffers["x"], p, 2 * elements)))
            return [b.bind(tirx.reinterpret(f"int8x{2 * group}", _shuffle([words], [i, i + 2]))) for i in range(2)]
        codes = [b.bind(b.load(self.buffers["x"], place, elements)) for place in (p, q)]
        operands = []
        for step in range(count):
            own = range(step * group, (step + 1) * group)
            operands.append(b.bind(_shuffle(codes, [*own, *(elements + i for i in own)])))
        return operands

    def _end(self, at: Corner, pixels: list[tuple[int, int]], vectors: list[Vector], acc: list[list[b.Buffer]]) -> None:
        codes = self.epilogue.out is not None and not self.epilogue.residual_is_float
        for j, v in self._joined(vectors):
            together = codes and v.lanes > self.vector.lanes
            m = self._multiplier(at, j, v)
            for (p, q), row in zip(self.pairs, acc, strict=True):
                sums = [b.load(half, 0, 4) for half in row[2 * j : 2 * j + v.lanes // 2]]
                ends = [pixels[p]] if p == q else [pixels[p], pixels[q]]
                if together and p != q:
                    self._finish_together(at, ends, j, v, sums, m)
                    continue
                halves = [b.bind(x) for x in sums]
                for number, (dy, dx) in enumerate(ends):
                    parted = [_shuffle(halves[i : i + 2], _PARTED[number]) for i in range(0, len(halves), 2)]
                    self._finish(at, dy, dx, j, v, b.joined(parted, v.lanes), m)

    def _finish_together(
        self, at: Corner, ends: list[tuple[int, int]], j: int, v: Vector, sums: list[Expr], m: Expr
    ) -> None:
        """The epilogue of two pixels and ``v.lanes`` channels, 8 channels a time, and their stores."""
        residual = self._residual(at, ends, j, v)
        parts = []
        for start in range(0, v.lanes, 8):
            channels = [start + c for i in range(0, 8, 2) for c in (i, i + 1, i, i + 1)]
            values = b.scaled(b.joined(sums[start // 2 : start // 2 + 4], 16), _shuffle([m, m], channels), 16)
            codes = b.finish(values, self.epilogue, 16, residual[start // 8] if residual else None, v.dot)
            parts.append(b.bind(tirx.reinterpret("int16x8", codes)))
        for number, (dy, dx) in enumerate(ends):
            own = tirx.reinterpret(f"int8x{v.lanes}", _shuffle(parts, range(number, v.lanes, 2)))
            b.store(self.buffers["y"], self._place(self.r.out, at, dy, dx, j), own, v.lanes)

    def _residual(self, at: Corner, ends: list[tuple[int, int]], j: int, v: Vector) -> list[Expr]:
        """The other tensor's codes, if any: both pixels' words in turn, 8 channels a time."""
        if self.r.residual is None:
            return []
        count, words = v.lanes // 2, []
        for dy, dx in ends:
            codes = b.load(self.buffers["residual"], self._place(self.r.residual, at, dy, dx, j), v.lanes)
            words.append(b.bind(tirx.reinterpret(f"int16x{count}", codes)))
        turns = [[i + n * count for i in range(start, start + 4) for n in range(2)] for start in range(0, count, 4)]
        return [b.bind(tirx.reinterpret("int8x16", _shuffle(words, turn))) for turn in turns]


def _shuffle(vectors: list[Expr], lanes: Sequence[int]) -> Expr:
    return tirx.Shuffle(vectors, [tirx.IntImm("int32", i) for i in lanes])
