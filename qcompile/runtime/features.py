"""What this CPU can do, in the words of /proc/cpuinfo, and whether it can run a library."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from qcompile.errors import QCompileError

CPUINFO = Path("/proc/cpuinfo")
_ARM_LTD = {  # CPU part -> name, of implementer 0x41
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd47": "Cortex-A710",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
_CORES = {("0x41", part): name for part, name in _ARM_LTD.items()}


@cache
def host_features() -> frozenset[str]:
    """Feature words of the first CPU; empty where there is no /proc/cpuinfo."""
    try:
        return features_of(CPUINFO.read_text())
    except OSError:
        return frozenset()


@cache
def host_name() -> str:
    """The CPU's model name."""
    try:
        return name_of(CPUINFO.read_text())
    except OSError:
        return name_of("")


def name_of(cpuinfo: str) -> str:
    """The model name in the text of /proc/cpuinfo; where ARM gives none, its cores: "Cortex-A55 + Cortex-A78"."""
    cpus = cpus_of(cpuinfo)
    for key in ("model name", "Model"):
        for cpu in cpus:
            if key in cpu:
                return cpu[key]
    parts = dict.fromkeys((cpu["CPU implementer"], cpu["CPU part"]) for cpu in cpus if "CPU part" in cpu)
    return " + ".join(_CORES.get(part, f"CPU {part[0]} {part[1]}") for part in parts) or "unknown CPU"


def features_of(cpuinfo: str) -> frozenset[str]:
    """Feature words of the first CPU in the text of /proc/cpuinfo."""
    for cpu in cpus_of(cpuinfo):
        if words := cpu.get("flags", cpu.get("Features")):  # x86, ARM
            return frozenset(words.split())
    return frozenset()


def cpus_of(cpuinfo: str) -> list[dict[str, str]]:
    """The fields of each paragraph of the text of /proc/cpuinfo: one a CPU, on ARM one more."""
    paragraphs = (block.splitlines() for block in cpuinfo.split("\n\n"))
    return [
        {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        for lines in paragraphs
        if lines
    ]


def check_cpu(triple: str, features: Iterable[str], target: str, where: str) -> None:
    """Raises ``QCompileError`` that names what this machine lacks to run code for ``target``."""
    arch = triple.split("-")[0]
    if arch != platform.machine():
        raise QCompileError(
            f"built for {arch} ({target}), this machine is {platform.machine()}",
            node=where,
            remedy="run it on such a machine or with --emulate, or build with --target native",
        )
    missing = [f for f in features if f not in host_features()]
    if missing:
        raise QCompileError(
            f"built for {target}, and this CPU lacks {', '.join(missing)}",
            node=where,
            remedy="build with --target native on this machine, or run it on a newer one",
        )
