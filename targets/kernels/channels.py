"""Any choice of channels of blocked tensors, as constant shuffles of whole blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm.ir import Expr

from qcompile.targets.kernels.builder import Index, bind
from qcompile.targets.kernels.transpose import shuffle

_PERIODS = (1, 2, 3, 4)  # blocks after which the choice of channels may repeat: two for a shuffle of two groups


@dataclass(frozen=True, slots=True)
class ChannelRun:
    """Output blocks ``first, first + step, ...``, all made by the same shuffle of input blocks that move on evenly.

    sources, starts, moves: for each vector that is read, its tensor, its block for the first output block, and how many
    blocks further it is for the next one. lanes: for each lane of the result, its lane among all of those vectors.
    """

    first: int
    step: int
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
    single = [_one_block(b, numbers[b * block : (b + 1) * block], block) for b in range(-(-len(numbers) // block))]
    runs: list[ChannelRun] = []
    while single:
        repeats = {period: _repeats(single, period) for period in _PERIODS if period <= len(single)}
        # The longest stretch in the fewest runs; without a repetition, one block.
        period = max(repeats, key=lambda p: (repeats[p] * p if repeats[p] > 1 else 1, -p))
        count = repeats[period]
        for a, b in zip(single[:period], single[period : 2 * period] or single[:period], strict=False):
            moves = tuple(int(y - x) for x, y in zip(a.starts, b.starts, strict=True)) if count > 1 else a.moves
            runs.append(replace(a, step=period, count=count, moves=moves))
        single = single[period * count :]
    return runs


def _one_block(number: int, chosen: Sequence[tuple[int, int]], block: int) -> ChannelRun:
    vectors = list(dict.fromkeys((source, channel // block) for source, channel in chosen))
    lanes = [vectors.index((source, channel // block)) * block + channel % block for source, channel in chosen]
    lanes += range(len(lanes), block) if lanes == list(range(len(lanes))) else [0] * (block - len(lanes))
    sources, starts = (tuple(v[k] for v in vectors) for k in range(2))
    return ChannelRun(number, 1, 1, sources, starts, (0,) * len(vectors), tuple(lanes))


def _repeats(blocks: list[ChannelRun], period: int) -> int:
    """How often the first ``period`` blocks come again, all their inputs moving on evenly."""
    count = 1
    while (count + 1) * period <= len(blocks) and all(
        _continues(blocks, count * period + i, period) for i in range(period)
    ):
        count += 1
    return count


def _continues(blocks: list[ChannelRun], at: int, period: int) -> bool:
    """Whether block ``at`` follows the one a period before, by the same move as that did."""
    here, before = blocks[at], blocks[at - period]
    if (here.sources, here.lanes) != (before.sources, before.lanes):
        return False
    if at < 2 * period:
        return True
    earlier = blocks[at - 2 * period].starts
    return all(c - b == b - a for a, b, c in zip(earlier, before.starts, here.starts, strict=True))


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
