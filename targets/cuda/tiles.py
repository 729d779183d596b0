"""``Tile``: how blocks of threads share out a product, and which tiles a layer may have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from qcompile.targets.cuda.architectures import Architecture

STEP = 64  # bytes of the reduction that a stage holds; as in device/contract.cuh
_REGISTERS = 512  # that the warps of one of the four schedulers share
_MOST_REGISTERS = 216  # of a thread, as they are counted here; there are 255, and the compiler wants some for itself
_OWN_REGISTERS = 40  # addresses and counters of a thread, beside sums and what it multiplies
_FEW_ROWS, _ROW_REGISTERS = 4, 5  # rows of x that a thread copies pieces of; what each one more than that takes
_MOST_THREADS = 512  # of a block that pays
_RESERVED = 1 << 10  # bytes of shared memory that a block takes beside its own, from sm_80 on


@dataclass(frozen=True, slots=True)
class Problem:
    """A product as tiles see it: ``pixels`` rows by ``channels`` columns of each of ``groups``, over ``length`` bytes.

    piece: bytes that a copy of x moves, 16, 8 or 4.
    """

    pixels: int
    channels: int
    groups: int
    length: int
    piece: int = 16

    @property
    def steps(self) -> int:
        return -(-self.length // STEP)

    def blocks(self, tile: Tile) -> int:
        return self.groups * -(-self.pixels // tile.pixels) * -(-self.channels // tile.channels)


@dataclass(frozen=True, slots=True)
class Tile:
    """What a block of threads computes: pixels by channels, in warps_m by warps_n warps.

    stages: that copies fill in turns. slices: groups of as many warps, each with stages of its own, that take turns at
    the reduction; their sums are added at the end.
    """

    pixels: int
    channels: int
    warps_m: int
    warps_n: int
    stages: int
    slices: int = 1

    def __str__(self) -> str:
        slices = f" in {self.slices} slices" if self.slices > 1 else ""
        return f"{self.pixels}x{self.channels} {self.warps_m}x{self.warps_n} {self.stages} stages{slices}"

    @property
    def warps(self) -> int:
        """Of a slice."""
        return self.warps_m * self.warps_n

    @property
    def threads(self) -> int:
        return 32 * self.warps * self.slices

    @property
    def rows(self) -> int:
        """Pixels of a warp."""
        return self.pixels // self.warps_m

    @property
    def columns(self) -> int:
        """Channels of a warp."""
        return self.channels // self.warps_n

    @property
    def shared_bytes(self) -> int:
        """The stages; later, sums of slices, then codes of results, whose rows are 16 bytes apart more than their
        length."""
        stages = self.slices * self.stages * (self.pixels + self.channels) * STEP
        sums = (self.slices - 1) * 4 * self.pixels * self.channels
        return max(stages, sums, self.pixels * (self.channels + 16))

    @property
    def registers(self) -> int:
        """That suffice for a thread: its sums, what it multiplies, and the rest, in eights."""
        taken = self.rows * self.columns // 32 + self.rows // 4 + self.columns // 4 + _OWN_REGISTERS
        return -(-(taken + self._places(16)) // 8) * 8

    def _places(self, piece: int) -> int:
        """Registers for the rows of which a thread copies a piece, beyond the few that are counted already."""
        return _ROW_REGISTERS * max(0, self.pixels * (STEP // piece) // (32 * self.warps) - _FEW_ROWS)

    def resident(self, arch: Architecture) -> int:
        """Blocks that a multiprocessor holds at once; 0 if none fits."""
        if self.shared_bytes > arch.block_shared:
            return 0
        by_registers = 4 * (_REGISTERS // self.registers) // (self.warps * self.slices)
        by_threads = min(arch.threads // self.threads, arch.blocks)
        return min(by_registers, by_threads, arch.shared_bytes // (self.shared_bytes + _RESERVED))

    def _shared_out(self, resident: int) -> int:
        """Registers of a thread if there are so many blocks at once."""
        return _REGISTERS // -(-resident * self.warps * self.slices // 4)

    def launch(self, piece: int, arch: Architecture, more: int = 0) -> str:
        """piece: bytes of a copy of x. With small ones a thread copies many, whose places take registers, too.

        more: registers that a thread needs beside ``registers``, if they are to be had.
        """
        resident = self.resident(arch) if piece == 16 else 1
        while more and resident > 1 and self._shared_out(resident) < self.registers + more:
            resident -= 1
        return f"QC_KERNEL_RESIDENT({self.threads}, {max(resident, 1)})"

    def fits(self, problem: Problem, arch: Architecture, more: int = 0) -> bool:
        """Whether the kernel can be made of it: every thread of a slice copies as much, and all is there at once.

        more: registers that a thread needs beside ``registers``.
        """
        threads, pieces = 32 * self.warps, STEP // problem.piece
        shared_out = self.pixels * pieces % threads == 0 and self.channels * 4 % threads == 0
        whole = self.rows % 16 == 0 and self.columns % 16 == 0 and self.rows * self.warps_m == self.pixels
        turns = self.slices == 1 or problem.steps >= 2 * self.slices
        registers = self.registers - self._places(16) + self._places(problem.piece) + more
        there = min(_MOST_REGISTERS, _REGISTERS // -(-self.warps * self.slices // 4))
        fit = self.threads <= _MOST_THREADS and registers <= there and self.resident(arch) > 0
        return shared_out and whole and turns and fit


def tiles(problem: Problem, arch: Architecture) -> Iterator[Tile]:
    """All that a layer may have."""
    warps, stages = (1, 2, 4), (2, 3, 4, 6) if arch.copies else (2,)
    for rows, columns, m, n, ahead, slices in product((16, 32, 64), (16, 32, 64), warps, warps, stages, warps):
        tile = Tile(rows * m, columns * n, m, n, ahead, slices)
        if tile.fits(problem, arch):
            yield tile
