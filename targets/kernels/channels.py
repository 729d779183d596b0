"""Any choice of channels of blocked tensors, as constant shuffles of whole blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm.ir import Expr

from qcompile.targets.kernels.builder import Index, bind
from qcompile.targets.kernels.transpose import shuffle


@dataclass(frozen=True, slots=True)
class ChannelRun:
    """Output blocks ``first ... first + count - 1``, all made by the same shuffle of input blocks that move on evenly.

    sources, starts, moves: for each vector that is read, its tensor, its block for the first output block, and how many
    blocks further it is for the next one. lanes: for each lane of the result, its lane among all of those vectors.
    """

    first: int
    count: int
    sources: tuple[int, ...]
    starts: tuple[int, ...]
    moves: tuple[int, ...]
    lanes: tuple[int, ...]

    @property
    def copies(self) -> bool:
        """Whether the block is taken over as it is."""
        return self.lanes == tuple(range(len(self.lanes)))

    def blocks(self, i: Index) -> list[Index]:
        """The input blocks for the i-th output block."""
        return [start + i * move for start, move in zip(self.starts, self.moves, strict=True)]


def channel_runs(numbers: Sequence[tuple[int, int]], block: int) -> list[ChannelRun]:
    """numbers: for each output channel, (source, its channel there). Lanes beyond the last channel hold any channel."""
    runs: list[ChannelRun] = []
    for b in range(-(-len(numbers) // block)):
        chosen = numbers[b * block : (b + 1) * block]
        vectors = list(dict.fromkeys((source, channel // block) for source, channel in chosen))
        lanes = [vectors.index((source, channel // block)) * block + channel % block for source, channel in chosen]
        lanes += range(len(lanes), block) if lanes == list(range(len(lanes))) else [0] * (block - len(lanes))
        run = ChannelRun(
            b, 1, tuple(k for k, _ in vectors), tuple(i for _, i in vectors), (0,) * len(vectors), tuple(lanes)
        )
        longer = _extended(runs[-1], run) if runs else None
        if longer:
            runs[-1] = longer
        else:
            runs.append(run)
    return runs


def _extended(run: ChannelRun, following: ChannelRun) -> ChannelRun | None:
    """``run`` with one block more, if that is made in the same way."""
    if (run.sources, run.lanes) != (following.sources, following.lanes):
        return None
    last = run.blocks(run.count - 1)
    moves = tuple(int(b - a) for a, b in zip(last, following.starts, strict=True))
    if run.count > 1 and moves != run.moves:
        return None
    return ChannelRun(run.first, run.count + 1, run.sources, run.starts, moves, run.lanes)


def gather_channels(vectors: list[Expr], lanes: Sequence[int], block: int) -> Expr:
    """The chosen lanes of the vectors, which join one after the other: hardware shuffles two registers at a time."""
    result = bind(vectors[0])
    if len(vectors) == 1:
        return result if list(lanes) == list(range(block)) else shuffle([result], list(lanes))
    order = [lane if lane < block else 0 for lane in lanes]
    for k, vector in enumerate(vectors[1:], start=1):
        mine = [lane // block == k for lane in lanes]
        kept = order if k == 1 else list(range(block))
        both = [block + lane % block if own else old for lane, own, old in zip(lanes, mine, kept, strict=True)]
        result = bind(shuffle([result, bind(vector)], both))
    return result
