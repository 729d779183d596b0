"""Instructions of each kernel, by address, as QEMU executes them."""

from __future__ import annotations

import pytest

import qcompile as qc
from qcompile.errors import QCompileError
from qcompile.runtime.counting import counting
from qcompile.runtime.emulate import Emulator
from qcompile.targets.arm import ROWS
from tests.building import cnn, plan_of, samples
from tests.emulation import skip_without

ARM = ROWS[1]


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    skip_without(ARM, counting=True)
    model = qc.import_onnx(cnn())
    artifact = qc.build(model, plan_of(model, ARM.name), ARM, out=tmp_path_factory.mktemp("built") / "out")
    emulator, feed = Emulator(artifact.path), samples(model)[0]
    return artifact.manifest, emulator.trace(feed), emulator.count(feed)


def test_every_kernel_has_its_dot_products(traced):
    manifest, kernels, _ = traced
    macs = {layer.name: layer.macs for layer in manifest.layers}
    assert len(kernels) == len(manifest.calls) and any(macs.values())
    for call, kernel in zip(manifest.calls, kernels, strict=True):
        products = sum(i.times for i in kernel if i.mnemonic == "sdot")
        assert 16 * products >= macs.get(call.layer, 0)  # of one instruction
        assert products or not macs.get(call.layer)


def test_kernels_make_up_the_call(traced):
    """Less the checks of its arguments; and with the stamps, which ``main`` does not write."""
    _, kernels, counts = traced
    traced_products = sum(i.times for kernel in kernels for i in kernel if i.mnemonic == "sdot")
    assert traced_products == counts["sdot"]
    assert sum(i.times for kernel in kernels for i in kernel) == pytest.approx(sum(counts.values()), rel=0.1)


def test_addresses_are_in_order_and_hold_what_was_executed(traced):
    _, kernels, _ = traced
    for kernel in kernels:
        addresses = [i.address for i in kernel]
        assert addresses == sorted(set(addresses)) and all(i.times > 0 and i.address % 4 == 0 for i in kernel)
        for i in kernel:
            assert (i.mnemonic == "ret") == (i.code == 0xD65F03C0)


@pytest.mark.parametrize(
    ("version", "help_text", "reason"),
    [
        ("qemu-aarch64 version 7.2.22 (Debian)", "-plugin  load it", ""),
        ("qemu-aarch64 version 7.2.22 (Debian)", "-help", "it was built without plugins"),
        ("qemu-aarch64 version 10.0.2", "-plugin  load it", "qemu-aarch64 version 10.0.2"),
    ],
)
def test_a_qemu_that_cannot_count_is_told(tmp_path, version, help_text, reason):
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\ncase $1 in --version) echo '{version}';; -help) echo '{help_text}';; esac\n")
    qemu.chmod(0o755)
    if reason:
        with pytest.raises(QCompileError, match=reason):
            counting([str(qemu), "program"], tmp_path / "log")
    else:
        assert counting([str(qemu), "program"], tmp_path / "log")[-1] == "program"
