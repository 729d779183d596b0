"""Reductions written out: whatever is unrolled, the steps come in the same order, which is the weights' order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qcompile.targets.kernels.reduction import Segment, written_out


def in_order(loops, steps, group):
    """First element of each step of nested loops."""
    starts = [s * group for s in range(steps)]
    for extent, stride in reversed(loops):
        starts = [i * stride + start for i in range(extent) for start in starts]
    return starts


@given(
    loops=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 99)), max_size=3),
    steps=st.integers(1, 20),
    group=st.sampled_from([1, 2, 4]),
    unroll=st.integers(1, 50),
)
def test_the_steps_and_their_order_stay(loops, steps, group, unroll):
    segment = Segment(0, tuple(loops), steps)
    outer, bodies = written_out(segment, group, unroll)
    inside = []
    for body in bodies:
        assert body.step == len(inside)
        assert len(body.starts) <= unroll
        inside += [i * body.stride + start for i in range(body.times) for start in body.starts]
    starts = inside
    for extent, stride in reversed(outer):
        starts = [i * stride + start for i in range(extent) for start in starts]
    assert starts == in_order(loops, steps, group)
    assert len(starts) == segment.length
