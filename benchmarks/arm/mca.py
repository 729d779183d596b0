"""Cycles of a loop by LLVM's static model of a core (llvm-mca): every load hits the cache, every branch is foreseen."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from benchmarks.arm.loops import multiplies

OLDEST, NEWEST = 16, 40  # LLVM 16 is the first that has a model of the Neoverse N1
PASSES = 200
_TRIPLE = "aarch64-linux-gnu"
_ROW = re.compile(
    r"^ +\d+ +\d+ +([\d.]+) [ *U]+([a-z]\S*)", re.MULTILINE
)  # micro-ops, latency, cycles apart, flags, text
_CYCLES = re.compile(r"^Total Cycles: +(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cycles:
    """Of one pass of a loop. limit: what its multiplications take by themselves, at the rate that the core issues them.

    Both by the model: 0.5 cycles a sdot is two of them in a cycle.
    """

    cycles: float
    limit: float


def missing() -> str:
    """What to do for cycles to be had, "" if they can be."""
    return "" if _tools() else f"no llvm-mca of LLVM {OLDEST} or newer found: 'apt install llvm-19' (or newer) has one"


def model_of(cpu: str) -> str:
    """Whose figures these are, in a title: they differ between versions of LLVM."""
    tools = _tools()
    return f"; cycles of {cpu} by LLVM {_version(tools[0])}" if tools else ""


def loop_cycles(codes: Sequence[int], cpu: str) -> Cycles:
    """codes: the instructions of one pass. cpu: LLVM's name of the core."""
    tools = _tools()
    assert tools, missing()
    mca, mc = tools
    octets = " ".join(f"0x{octet:02x}" for code in codes for octet in code.to_bytes(4, "little"))
    assembly = _run([mc, "--disassemble", f"-triple={_TRIPLE}", "-mattr=+all"], octets)
    return read_report(
        _run([mca, f"-mtriple={_TRIPLE}", f"-mcpu={cpu}", "-mattr=+all", f"-iterations={PASSES}"], assembly)
    )


def read_report(report: str) -> Cycles:
    """What llvm-mca prints of ``PASSES`` passes."""
    (total,) = _CYCLES.findall(report)
    rows = _ROW.findall(report)
    work = multiplies(mnemonic for _, mnemonic in rows)
    return Cycles(int(total) / PASSES, sum(float(apart) for apart, mnemonic in rows if mnemonic in work))


@cache
def _tools() -> tuple[str, str] | None:
    """Paths of llvm-mca and llvm-mc, of one version: the newest."""
    for suffix in (*(f"-{number}" for number in range(NEWEST, OLDEST - 1, -1)), ""):
        mca, mc = shutil.which(f"llvm-mca{suffix}"), shutil.which(f"llvm-mc{suffix}")
        if mca and mc and (suffix or _version(mca) >= OLDEST):
            return mca, mc
    return None


def _version(tool: str) -> int:
    found = re.search(r"LLVM version (\d+)", _run([tool, "--version"], ""))
    return int(found[1]) if found else 0


def _run(command: Sequence[str], text: str) -> str:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
