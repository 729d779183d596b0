from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.passes.plan_memory import ALIGNMENT, Lifetime, plan_memory


@st.composite
def lifetimes(draw) -> Lifetime:
    first = draw(st.integers(0, 12))
    return Lifetime(draw(st.integers(0, 5000)), first, first + draw(st.integers(0, 5)))


def rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@settings(max_examples=100, deadline=None)
@given(st.lists(lifetimes(), max_size=15))
def test_buffers_in_use_at_the_same_time_do_not_overlap(buffers):
    offsets, total = plan_memory(buffers)
    placed = list(zip(buffers, offsets, strict=True))
    for i, (a, at) in enumerate(placed):
        assert at % ALIGNMENT == 0 and at + a.size <= total
        for b, bt in placed[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert at + a.size <= bt or bt + b.size <= at or 0 in (a.size, b.size)


@settings(max_examples=100, deadline=None)
@given(st.lists(lifetimes(), max_size=15))
def test_the_whole_lies_between_the_busiest_step_and_the_sum(buffers):
    _, total = plan_memory(buffers)
    assert total <= sum(rounded(b.size) for b in buffers)
    assert total >= max((sum(b.size for b in buffers if b.first <= t <= b.last) for t in range(18)), default=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=2, max_size=15))
def test_a_chain_takes_its_largest_pair(sizes):
    """Each kernel reads one buffer and writes the next. Greedy is optimal where they shrink."""
    sizes.sort(reverse=True)
    chain = [Lifetime(rounded(size), i, i + 1) for i, size in enumerate(sizes)]
    assert plan_memory(chain)[1] == max(a.size + b.size for a, b in zip(chain, chain[1:], strict=False))


def test_memory_is_used_again_as_soon_as_it_is_free():
    offsets, total = plan_memory([Lifetime(100, 0, 1), Lifetime(100, 1, 2), Lifetime(100, 2, 3)])
    assert offsets == [0, 128, 0] and total == 228


def test_a_long_lived_buffer_keeps_its_place():
    offsets, total = plan_memory([Lifetime(64, 0, 9), *(Lifetime(640, i, i) for i in range(9))])
    assert offsets == [640, *[0] * 9] and total == 704


def test_a_small_buffer_fits_into_a_gap():
    buffers = [Lifetime(640, 0, 0), Lifetime(320, 0, 5), Lifetime(128, 1, 2)]
    offsets, total = plan_memory(buffers)
    assert offsets == [0, 640, 0] and total == 960


def test_nothing_takes_nothing():
    assert plan_memory([]) == ([], 0)
