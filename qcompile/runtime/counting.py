"""Executed instructions, as QEMU's plugin ``native/icount.c`` writes them down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qcompile.runtime.executable import counter


@dataclass(frozen=True, slots=True)
class Executed:
    """An instruction of a program: where it lies, its machine code, and how many times it was executed."""

    address: int
    code: int
    mnemonic: str
    times: int


def plugin(log: str | Path, sections: bool = False) -> list[str]:
    """The words of QEMU's command line that count a program's instructions into ``log``; see ``executable.counter``."""
    return ["-plugin", f"{counter()},sections=on" if sections else str(counter()), "-d", "plugin", "-D", str(log)]


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
