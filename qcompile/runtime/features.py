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
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, words = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86, ARM
            return frozenset(words.split())
    return frozenset()


def check_cpu(triple: str, features: Iterable[str], target: str, where: str) -> None:
    """Raises ``QCompileError`` that names what this machine lacks to run code for ``target``."""
    arch = triple.split("-")[0]
    if arch != platform.machine():
        raise QCompileError(
            f"built for {arch} ({target}), this machine is {platform.machine()}",
            node=where,
            remedy="run it on such a machine, or build with --target native",
        )
    missing = [f for f in features if f not in host_features()]
    if missing:
        raise QCompileError(
            f"built for {target}, and this CPU lacks {', '.join(missing)}",
            node=where,
            remedy="build with --target native on this machine, or run it on a newer one",
        )
