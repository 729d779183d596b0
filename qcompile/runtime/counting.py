"""Executed instructions, as QEMU's plugin ``native/icount.c`` writes them down."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qcompile.errors import QCompileError
from qcompile.runtime.executable import counter


@dataclass(frozen=True, slots=True)
class Executed:
    """An instruction of a program: where it lies, its machine code, and how many times it was executed."""

    address: int
    code: int
    mnemonic: str
    times: int


def check_counting(qemu: str) -> None:
    """Raises ``QCompileError`` for a QEMU that cannot count, and where the plugin cannot be compiled."""
    if reason := unable(qemu):
        raise QCompileError(
            f"cannot count instructions: {reason}",
            node=qemu,
            remedy="it takes QEMU 6 to 8 as a shared program, such as qemu-user of Debian 12 or Ubuntu 24.04",
        )
    counter()


def counting(command: Sequence[str], log: str | Path, sections: bool = False) -> list[str]:
    """A command that begins with QEMU, with the words that make it count the program's instructions into ``log``.

    Raises as ``check_counting``.
    """
    qemu, *rest = command
    check_counting(qemu)
    plugin = f"{counter()},sections=on" if sections else str(counter())
    return [qemu, "-plugin", plugin, "-d", "plugin", "-D", str(log), *rest]


@cache
def unable(qemu: str) -> str:
    """Why this QEMU does not take the plugin, "" if it does."""

    def says(option: str) -> str:
        return subprocess.run([qemu, option], capture_output=True, text=True, check=False).stdout

    found = re.search(r"version (\d+)", version := says("--version"))
    if found is None or not 6 <= int(found[1]) <= 8:
        return (version.splitlines() or ["no version"])[0]
    return "" if "-plugin" in says("-help") else "it was built without plugins"


def read_counts(log: str | Path) -> dict[str, int]:
    """Instructions of a whole run, by mnemonic."""
    lines = (line.split() for line in Path(log).read_text().splitlines())
    return {mnemonic: int(number) for mnemonic, number in lines}


def read_sections(log: str | Path) -> list[list[Executed]]:
    """Instructions between a reading of the virtual counter and the next, in order of addresses."""
    sections: list[dict[int, Executed]] = []
    for line in Path(log).read_text().splitlines():
        number, address, code, times, mnemonic = line.split()
        sections += [{} for _ in range(int(number) + 1 - len(sections))]
        place, section = int(address, 16), sections[int(number)]
        before = section[place].times if place in section else 0  # code is translated once for each way into it
        section[place] = Executed(place, int(code, 16), mnemonic, before + int(times))
    return [[section[place] for place in sorted(section)] for section in sections]
