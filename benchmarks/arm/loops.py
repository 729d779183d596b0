"""The loop that a kernel spends most of its instructions in, from a trace of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qcompile.runtime.counting import Executed

PRODUCTS = frozenset({"sdot", "udot", "usdot", "smmla", "ummla", "usmmla"})  # of 8-bit codes, added up in 32 bits
# What multiplies where there are none: codes widened to 16 bits (ARMv8.0), and floats.
_WIDE = frozenset({"smull", "smull2", "smlal", "smlal2", "umull", "umull2", "umlal", "umlal2", "fmla"})


@dataclass(frozen=True, slots=True)
class Loop:
    """An innermost loop. codes, mnemonics: one pass, in order, the branch last. instructions: of all passes."""

    codes: tuple[int, ...]
    mnemonics: tuple[str, ...]
    passes: int
    instructions: int


def hottest_loop(trace: Sequence[Executed]) -> Loop | None:
    """The innermost loop with the most instructions; None for straight code. trace: in order of addresses."""
    loops = [
        (target, branch)
        for branch in trace
        if (target := branch_target(branch.address, branch.code)) is not None and target <= branch.address
    ]
    innermost = [
        (start, branch)
        for start, branch in loops
        if not any(start <= other and end.address < branch.address for other, end in loops)
    ]
    return max((_loop(trace, *found) for found in innermost), key=lambda loop: loop.instructions, default=None)


def _loop(trace: Sequence[Executed], start: int, branch: Executed) -> Loop:
    """A pass is what most passes execute: paths of a few pixels at the border are left out of it."""
    inside = [i for i in trace if start <= i.address <= branch.address]
    one = [i for i in inside if 2 * i.times > branch.times]
    return Loop(
        codes=tuple(i.code for i in one),
        mnemonics=tuple(i.mnemonic for i in one),
        passes=branch.times,
        instructions=sum(i.times for i in inside),
    )


def multiplies(mnemonics: Iterable[str]) -> frozenset[str]:
    """The instructions that do the work of code with these: dot products if it has any, else what multiplies."""
    present = set(mnemonics)
    return PRODUCTS if present & PRODUCTS else _WIDE


def branch_target(address: int, code: int) -> int | None:
    """Where an A64 branch that is no call leads to; None for any other instruction.

    Encodings: Arm Architecture Reference Manual, C4.1.93 (branches, exception generating and system instructions).
    """
    if code >> 26 == 0b000101:  # b
        return address + _signed(code, 0, 26)
    if code & 0xFF000000 == 0x54000000 or code & 0x7E000000 == 0x34000000:  # b.cond, cbz, cbnz
        return address + _signed(code, 5, 19)
    if code & 0x7E000000 == 0x36000000:  # tbz, tbnz
        return address + _signed(code, 5, 14)
    return None


def _signed(code: int, low: int, bits: int) -> int:
    """Bytes of an offset in instructions, of so many bits from bit ``low``."""
    field = code >> low & ((1 << bits) - 1)
    return 4 * (field - ((field >> bits - 1) << bits))
