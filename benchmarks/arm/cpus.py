"""What ONNX Runtime's process sees of the CPU that QEMU emulates: it asks the system, and must not see this one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_ARMV80 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_ARMV82 = f"{_ARMV80} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
_CPUINFO = """\
processor	: 0
BogoMIPS	: 50.00
Features	: {features}
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: {part}
CPU revision	: 1

"""


@dataclass(frozen=True, slots=True)
class Cpu:
    """qemu: its name there. part, features: in the words of /proc/cpuinfo."""

    qemu: str
    part: str
    features: str


# By the name that ``emulate.launcher`` has for it. The last is a Neoverse N2 without SVE, which QEMU 7 does not have;
# the vectors of SVE would be 512 bits wide there.
CPUS = {
    "cortex-a53": Cpu("cortex-a53", "0xd03", _ARMV80),
    "neoverse-n1": Cpu("neoverse-n1", "0xd0c", _ARMV82),
    "max": Cpu("max,sve=off", "0xd49", f"{_ARMV82} i8mm bf16"),
}


def root_of(cpu: Cpu, root: Path, folder: Path) -> Path:
    """A root in ``folder`` that has what ``root`` has, and the files that describe one such CPU."""
    new = folder / "root"
    cpus = new / "sys/devices/system/cpu"
    cpus.mkdir(parents=True)
    for name in ("possible", "present"):
        (cpus / name).write_text("0\n")
    (new / "proc").mkdir()
    (new / "proc/cpuinfo").write_text(_CPUINFO.format(part=cpu.part, features=cpu.features))
    for entry in root.iterdir():
        if not (new / entry.name).exists():
            (new / entry.name).symlink_to(entry.resolve())
    return new
