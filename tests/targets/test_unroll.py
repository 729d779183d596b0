"""How much of a reduction each dot product has written out."""

from __future__ import annotations

import pytest

from qcompile.ops import Affine, Conv2d, Epilogue
from qcompile.targets.arm import ROWS
from qcompile.targets.kernels.reduction import Segment, conv_reduction
from qcompile.targets.kernels.unroll import REACH, hoisted, reach, unrolled
from qcompile.targets.storage import Storage
from qcompile.targets.x86 import ROWS as X86

I8MM, SDOT, NEON = ROWS[0].matrix, ROWS[1].dot, ROWS[2].dot
CODES = Affine(1.0, 0, "int8")


def steps(dot, channels: int, window: int) -> tuple[int, int]:
    """(written out, in the loops around them) of a convolution."""
    segment = Segment(0, ((channels // 16, 999), (window, 99), (window, 16)), 16 // dot.group)
    loops, bodies = unrolled(segment, dot.group, dot.ahead)
    around = 1
    for extent, _ in loops:
        around *= extent
    return max(len(body.starts) for body in bodies), around * max(body.times for body in bodies)


@pytest.mark.parametrize(
    ("dot", "channels", "window", "want"),
    [
        (I8MM, 64, 3, (18, 4)),  # a whole window
        (I8MM, 64, 1, (8, 1)),  # a whole reduction
        (I8MM, 128, 1, (8, 2)),
        (I8MM, 256, 1, (8, 4)),
        (SDOT, 64, 3, (12, 12)),  # a row of a window
        (SDOT, 256, 1, (8, 8)),
        (NEON, 64, 3, (8, 36)),
        (X86[0].dot, 64, 3, (4, 36)),
    ],
)
def test_windows_are_written_out_where_vectors_are_short(dot, channels, window, want):
    assert steps(dot, channels, window) == want


def test_weights_that_reach_far_have_several_addresses():
    assert reach(REACH, SDOT) == REACH and reach(REACH + 64, SDOT) == 0
    assert reach(9999, None) == reach(9999, X86[0].dot) == 9999


@pytest.mark.parametrize(("dot", "inputs", "want"), [(SDOT, 16, False), (SDOT, 32, True), (SDOT, 64, False)])
def test_weights_are_hoisted_if_no_loop_is_left(dot, inputs, want):
    """16 channels: 16 registers hold their weights. 64: a loop is left."""
    spec = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), 1, CODES, Epilogue(CODES))
    x, out = Storage((1, inputs, 4, 4), "int8", 16), Storage((1, 16, 4, 4), "int8", 16)
    reduction = conv_reduction(spec, x, (16, inputs, 1, 1), out, None, dot.group)
    assert hoisted(reduction, 4, dot) == want
