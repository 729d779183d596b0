"""Counting the instructions of ARM candidates under QEMU."""

from __future__ import annotations

import platform

import pytest

from qcompile.errors import QCompileError
from qcompile.runtime import emulate
from qcompile.targets import arm, x86
from qcompile.targets.select import select_target
from qcompile.tune.counted import CountingMeasurer
from tests.emulation import skip_without
from tests.tune.workloads import SIGNED, Sabotage, conv, sabotaged_conv, some_knobs

N1 = select_target("neoverse-n1")
LAYER = conv(residual=True, codes=SIGNED)


@pytest.fixture(scope="module")
def measurer():
    skip_without(N1, counting=True)
    with CountingMeasurer(N1, workers=2) as measurer:
        yield measurer


def test_counts_are_what_a_kernel_executes_and_always_the_same(measurer):
    """Of the same library; into another one they may be inlined otherwise."""
    assert (measurer.unit, measurer.exact, measurer.device) == ("instructions", True, "QEMU neoverse-n1")
    knobs = some_knobs(LAYER, N1, 6)
    results = measurer.measure(LAYER, knobs, 0)
    assert [len(result.costs) for result in results] == [1] * 6 and not any(result.error for result in results)
    fewest = LAYER.macs / 16  # a product has 16
    assert all(fewest < result.minimum < 6 * fewest for result in results)
    assert len({result.minimum for result in results}) > 1
    assert measurer.measure(LAYER, knobs, 0) == results
    again = [result.minimum for result in measurer.measure(LAYER, knobs[::-2], 0)]
    assert again == pytest.approx([result.minimum for result in results[::-2]], rel=0.02)


def test_float_layers_are_counted(measurer):
    layer = conv(False)
    (result,) = measurer.measure(layer, some_knobs(layer, N1, 1), 0)
    assert result.minimum > layer.macs / 4 and not result.error


def test_what_fails_costs_one_trial(measurer):
    kinds = ["", "wrong", "trap", "refused", "does not compile", ""]
    results = measurer.measure(sabotaged_conv(SIGNED), [Sabotage(kind) for kind in kinds], 0)
    good, wrong, trap, refused, broken, other = results
    assert good.minimum == pytest.approx(other.minimum, rel=0.02)
    assert wrong.error.startswith("wrong result: ")
    assert trap.error.startswith("measuring failed: ") and "trap" in trap.error.lower()
    assert refused.error == "ValueError: no such tile" and broken.error
    assert not any(result.costs for result in results[1:-1])


def test_a_call_that_does_not_end_is_ended(tmp_path):
    with pytest.raises(QCompileError, match="the runner did not end within 1 s"):
        emulate.call(["sh", "-c", "exec sleep 60"], tmp_path, [], [], limit=1.0)


@pytest.mark.parametrize(
    ("target", "machine", "message"),
    [
        (arm.ROWS[1], "aarch64", "--runner icount: this machine runs code for arm-dotprod itself, and times say more"),
        (x86.ROWS[0], "aarch64", "--runner icount: instructions are counted of ARM code only, not for x86-"),
    ],
)
def test_targets_that_are_not_counted(monkeypatch, target, machine, message):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(QCompileError, match=message):
        CountingMeasurer(target)
