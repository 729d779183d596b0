"""Predicted times of launches: what bounds them, and in which order formats come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcompile.targets.cuda.architectures import ARCHITECTURES, architecture
from qcompile.targets.cuda.launch_time import LAUNCH, cycles_of, seconds
from qcompile.targets.cuda.text import Kernel

NOTHING = Kernel("", 1)


def test_what_computes_nothing_takes_as_long_as_its_bytes():
    for arch in ARCHITECTURES:
        assert seconds(NOTHING, 0, arch) == LAUNCH
        assert seconds(NOTHING, int(arch.memory), arch) == pytest.approx(1 + LAUNCH)


def test_the_scarcer_of_computing_and_memory_counts():
    arch = architecture("sm_80")
    busy = replace(NOTHING, cycles=arch.hertz)
    assert seconds(busy, 0, arch) == seconds(busy, int(arch.memory / 2), arch) == pytest.approx(1 + LAUNCH)


def test_a_sum_by_a_thread_alone_waits_for_its_terms():
    arch = architecture("sm_90")
    assert cycles_of(1, 1000, arch) == cycles_of(2, 1000, arch) > cycles_of(1, 100, arch)
    assert cycles_of(2_000_000, 1000, arch) == pytest.approx(2 * cycles_of(1_000_000, 1000, arch))
