"""Real models built for ARM: the bits of the x86 build, those of float islands included."""

from __future__ import annotations

import numpy as np
import pytest

import qcompile as qc
from qcompile.runtime.emulate import Emulator
from qcompile.targets.arm import ROWS
from qcompile.targets.select import select_target
from tests.e2e.bench_set import CNNS, model_path, plan_of, samples
from tests.emulation import skip_without

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module", params=CNNS)
def planned(request, tmp_path_factory):
    """(model, plan, feeds, results of the x86 build)."""
    model = qc.import_onnx(model_path(request.param))
    plan = plan_of(model, samples(request.param, "calib", 16)[0])
    feeds, _ = samples(request.param, "eval", 2)
    out = tmp_path_factory.mktemp(request.param) / "out"
    runner = qc.load(qc.build(model, plan, select_target("x86"), out=out).path)
    return model, plan, feeds, [runner.run(feed) for feed in feeds]


@pytest.mark.parametrize("target", ROWS, ids=lambda row: row.name)
def test_the_bits_of_x86(planned, target, tmp_path):
    skip_without(target)
    model, plan, feeds, expected = planned
    artifact = qc.build(model, plan, target, out=tmp_path / "out", tuning_records="none")
    emulator = Emulator(artifact.path)
    for feed, want in zip(feeds, expected, strict=True):
        got = emulator.run(feed)
        for name, array in want.items():
            np.testing.assert_array_equal(got[name], array, err_msg=name)
