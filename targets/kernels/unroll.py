"""How much of a reduction is written out, and what that asks of the addresses of its weights."""

from __future__ import annotations

from itertools import accumulate
from operator import mul

from qcompile.targets.instructions import Dot
from qcompile.targets.kernels.reduction import Body, Reduction, Segment, written_out

_LONG, _SHORT = 4, 8  # steps: of short vectors (which load several steps at once), each is less work
_WINDOW = 24  # steps of short vectors, if they are a whole window (of a reduction, epilogues would become part)
_REGISTERS = 32  # of a target with short vectors
REACH = 1024  # bytes behind an address from which one instruction loads two short vectors


def unrolled(segment: Segment, group: int, ahead: int) -> tuple[tuple[tuple[int, int], ...], list[Body]]:
    """``written_out`` for vectors that load so many steps at once (``contract.Vector``)."""
    if ahead == 1:
        return written_out(segment, group, _LONG)
    extents = [segment.steps, *(extent for extent, _ in reversed(segment.loops))]
    most = _WINDOW if group > 2 else 0  # products that are widened need the registers that neighbours would share
    whole = [steps for steps in accumulate(extents, mul) if steps <= most and steps < segment.length]
    return written_out(segment, group, max(_SHORT, *whole, 0))


def reach(size: int, dot: Dot | None) -> int:
    """How many of ``size`` bytes of weights that are written out are addressed from their start: all, or none where
    they reach too far, so that each part of ``REACH`` bytes wants an address of its own."""
    return 0 if dot is not None and dot.opaque is not None and size > REACH else size


def hoisted(reduction: Reduction, vectors: int, dot: Dot | None) -> bool:
    """Whether LLVM would take a tile's weights out of the loop over pixels, though they fill all registers alone.

    It does where a reduction is written out with no loop left. (Of long vectors so few steps are written out that their
    weights fit.) vectors: of output channels of the tile.
    """
    if dot is None or dot.opaque is None or reduction.steps * vectors * dot.pixels < _REGISTERS:
        return False
    written = [unrolled(segment, reduction.group, dot.ahead) for segment in reduction.segments]
    return not any(loops or any(body.times > 1 for body in bodies) for loops, bodies in written)
