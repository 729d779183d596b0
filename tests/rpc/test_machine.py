"""What the text of /proc/cpuinfo says of a machine."""

from __future__ import annotations

import pytest

from qcompile.errors import QCompileError
from qcompile.rpc.machine import Machine, machine_of

BIG_LITTLE = """
processor\t: 0
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd05

processor\t: 1
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd41

processor\t: 2
CPU implementer\t: 0x41
CPU part\t: 0xd41
"""


def test_cores_of_arm_have_names():
    assert machine_of(BIG_LITTLE) == Machine("Cortex-A55 + Cortex-A78", 3, frozenset({"fp", "asimd", "asimddp"}))
    assert machine_of("processor\t: 0\nCPU implementer\t: 0x61\nCPU part\t: 0x022\n").device == "CPU 0x61 0x022"
    assert machine_of(BIG_LITTLE + "\nModel\t: Raspberry Pi 5\n").device == "Raspberry Pi 5"
    assert machine_of("").device == "unknown CPU"


def test_what_a_machine_lacks_is_named():
    expected = r"the machine \(Cortex-A55 \+ Cortex-A78\) cannot run code for neoverse-v1: it lacks i8mm; choose"
    with pytest.raises(QCompileError, match=expected):
        machine_of(BIG_LITTLE).check(("asimd", "i8mm"), "neoverse-v1")
