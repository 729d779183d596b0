"""The loop nest of dense reductions by matrix products: pairs of pixels times pairs of output channels.

An instruction adds ``sum_k a[i][k] w[j][k]`` of two pixels i and two channels j to four accumulators. So the sums of
two pixels p, q and a vector of four channels lie in two registers while the reduction runs::

    p: c0 c1 c2 c3         first:  p c0, p c1, q c0, q c1
    q: c0 c1 c2 c3   ->    second: p c2, p c3, q c2, q c3

and the operand of both is the codes of p followed by those of q. The last pixel of an odd number is its own partner.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.contract import Contraction, Corner, Vector

_FIRST, _SECOND = (0, 1, 4, 5), (2, 3, 6, 7)  # halves of two vectors of four


class PairedContraction(Contraction):
    """A ``Contraction`` whose dot products take two pixels (``Dot.pixels``)."""

    def _sum(
        self, at: Corner, base: b.Index, offsets: list[int], vectors: list[Vector], acc: list[list[b.Buffer]]
    ) -> None:
        self.pairs = [(p, min(p + 1, len(acc) - 1)) for p in range(0, len(acc), 2)]
        sums = [[[b.registers(4, "int32") for _ in range(2)] for _ in vectors] for _ in self.pairs]
        for (p, q), row in zip(self.pairs, sums, strict=True):
            for j, halves in enumerate(row):
                self._exchange([acc[p][j], acc[q][j]], halves)
        super()._sum(at, base, offsets, vectors, sums)
        for (p, q), row in zip(self.pairs, sums, strict=True):
            for j, halves in enumerate(row):
                self._exchange(halves, [acc[p][j], acc[q][j]] if p != q else [acc[p][j]])

    def _exchange(self, sources: list[b.Buffer], results: list[b.Buffer]) -> None:
        """From one arrangement to the other: the two are each other's inverse."""
        both = [b.bind(b.load(source, 0, 4)) for source in sources]
        for result, lanes in zip(results, (_FIRST, _SECOND), strict=False):
            b.store(result, 0, _shuffle(both, lanes), 4)

    def _steps(
        self, at: list[b.Index], count: int, weights: b.Index, vectors: list[Vector], acc: list, present: int
    ) -> None:
        group, elements = self.r.group, self.r.group * count
        size = sum(v.lanes for v in vectors) * group
        codes = [b.bind(b.load(self.buffers["x"], place, elements)) for place in at]
        for step in range(count):
            own = range(step * group, (step + 1) * group)
            operands = [
                b.bind(_shuffle([codes[p], codes[q]], [*own, *(elements + i for i in own)])) for p, q in self.pairs
            ]
            for j, (v, weight) in enumerate(zip(vectors, self._weights(vectors, weights + step * size), strict=True)):
                for half in range(2):
                    pair = b.bind(_shuffle([weight], range(half * 2 * group, (half + 1) * 2 * group)))
                    for operand, row in zip(operands, acc, strict=True):
                        sums = row[j][half]
                        b.store(sums, 0, v.dot.accumulate(b.load(sums, 0, 4), operand, pair), 4)


def _shuffle(vectors: list[Expr], lanes) -> Expr:
    return tirx.Shuffle(vectors, [tirx.IntImm("int32", i) for i in lanes])
