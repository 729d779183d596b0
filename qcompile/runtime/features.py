"""What this CPU can do, in the words of /proc/cpuinfo, and whether it can run a library."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from qcompile.errors import QCompileError

CPUINFO = Path("/proc/cpuinfo")


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
    """The model name in the text of /proc/cpuinfo."""
    cpus = cpus_of(cpuinfo)
    return next((cpu[key] for key in ("model name", "Model") for cpu in cpus if key in cpu), "unknown CPU")


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
