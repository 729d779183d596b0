"""Schedules for little code, and which variants get them."""

from __future__ import annotations

import pytest

from qcompile.simulate.short import short_schedule
from qcompile.simulate.slices import is_spare, option_of
from qcompile.simulate.variant import Variant
from qcompile.targets.kernels.templates import TEMPLATES
from tests.targets.running import VNNI
from tests.tune import workloads

MADE = {
    "conv": workloads.conv(),
    "conv in float32": workloads.conv(integer=False),
    "dense": workloads.dense(floats_out=True),
    "int4 weights": workloads.dense_int4(),
}


@pytest.mark.parametrize("name", MADE)
def test_short_schedules_are_legal_and_short(name):
    workload = MADE[name]
    template = TEMPLATES[workload.operator]
    knobs = short_schedule(workload, VNNI).knobs
    assert template.is_legal(workload, VNNI, knobs)
    assert knobs.results <= min(template.default(workload, VNNI).results, 4)


def test_spare_is_what_a_build_has_at_borders_alone():
    fp32, codes, real = Variant("fp32"), Variant("int8", codes=True), Variant("int8")
    assert [is_spare(v, (fp32, codes, real)) for v in (fp32, codes, real)] == [False, False, True]
    assert not is_spare(real, (fp32, real))  # the only one: it is timed
    assert option_of((fp32, real, codes), "int8") == 2 and option_of((fp32, codes), "w4a8") == 0
