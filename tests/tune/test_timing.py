"""What is looked at again, and how often; with times that are made up."""

from __future__ import annotations

import pytest

from qcompile.tune import timing
from qcompile.tune.timing import _Bench


class Scripted(_Bench):
    """A bench whose candidates take given seconds a call; ``noise``: factors of the first calls of a look, by look."""

    def __init__(self, seconds: list[float], noise: dict[int, list[float]] | None = None):
        self.good, self.seconds = list(range(len(seconds))), {}
        self.footprint = 1000
        self.true, self.noise = seconds, noise or {}
        self.looks: list[tuple[list[int], int, int]] = []
        self.rotated: list[list[int]] = []

    def _rotate(self, slots, footprint):
        assert footprint == 1000
        self.rotated.append(list(slots))

    def _look(self, slots, rounds, repeat):
        factors = self.noise.get(len(self.looks), [])
        self.looks.append((list(slots), rounds, repeat))
        return {s: [self.true[s] * f for f in (factors + [1.0] * rounds)[:rounds]] for s in slots}


def test_hopeless_candidates_are_looked_at_once():
    bench = Scripted([100e-6, 290e-6, 310e-6])
    bench.time()
    assert [slots for slots, _, _ in bench.looks] == [[0, 1, 2], [0, 1]]
    assert bench.rotated == [[0, 1, 2], [0, 1]]
    assert len(bench.seconds[2]) == 3 and len(bench.seconds[0]) == len(bench.seconds[1]) == 32


@pytest.mark.parametrize(
    "seconds, rounds, repeat",
    [
        ([1e-3], 12, 1),  # as long as it takes to run for 12 ms
        ([5e-3] * 2, 10, 1),  # 10 times at least
        ([20e-3] * 16, 4, 1),  # but a batch of them would take seconds
        ([50e-6], 240, 1),
        ([0.1e-6], 1024, 20),  # several calls between two stamps
    ],
)
def test_rounds(seconds, rounds, repeat):
    bench = Scripted(seconds)
    bench.time()
    second = bench.looks[1:]
    assert sum(r for _, r, _ in second) == rounds
    assert all(r <= 256 for _, r, _ in second)
    assert {n for _, _, n in second} == {repeat}
    assert all(4 <= len(times) <= 32 for times in bench.seconds.values())


def test_noise_near_the_best_is_measured_again():
    """Until it is quiet, or twice; every timing is kept."""
    noisy = [1.5] * 8
    quiet = Scripted([1e-3, 1.1e-3])
    once = Scripted([1e-3, 1.1e-3], {1: noisy})
    always = Scripted([1e-3, 1.1e-3], {i: noisy for i in range(1, 9)})
    for bench in (quiet, once, always):
        bench.time()
    assert [len(b.looks) for b in (quiet, once, always)] == [2, 3, 4]
    assert [len(b.seconds[0]) for b in (quiet, once, always)] == [12, 24, 36]


def test_noise_of_slow_candidates_does_not_matter():
    bench = Scripted([1e-3, 2e-3])
    look = bench._look

    def noisy(slots, rounds, repeat):
        times = look(slots, rounds, repeat)
        return times | ({1: [2e-3] + [3e-3] * (rounds - 1)} if 1 in slots else {})

    bench._look = noisy
    bench.time()
    assert len(bench.looks) == 2


def test_many_timings_are_reduced_to_medians_of_neighbours():
    assert timing.reduced([3.0, 1.0]) == [3.0, 1.0]
    times = [float(i // 10) for i in range(320)]
    times[5] = 1000.0
    assert timing.reduced(times) == [float(i) for i in range(32)]
