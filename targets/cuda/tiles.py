"""``Tile``: how blocks of threads share out a product, and which one a layer gets."""

from __future__ import annotations

from dataclasses import dataclass

STEP = 64  # bytes of the reduction that a stage holds; as in device/contract.cuh
_PROCESSORS = 108  # of a middling data-centre GPU (A100): one choice serves every architecture of a build


@dataclass(frozen=True, slots=True)
class Tile:
    """What a block of threads computes: pixels by channels, in warps_m by warps_n warps.

    stages: that copies fill in turns. resident: blocks that a multiprocessor holds at once; registers suffice for them.
    """

    pixels: int
    channels: int
    warps_m: int
    warps_n: int
    stages: int
    resident: int

    def launch(self, pitch: int) -> str:
        """pitch: of x. Of narrow images a thread copies many small pieces, whose places take registers, too."""
        return f"QC_KERNEL_RESIDENT({self.threads}, {self.resident if pitch % 16 == 0 else 1})"

    @property
    def threads(self) -> int:
        return 32 * self.warps_m * self.warps_n

    @property
    def shared_bytes(self) -> int:
        """The stages; later, codes of results, whose rows are 16 bytes apart more than they are long."""
        return max(self.stages * (self.pixels + self.channels) * STEP, self.pixels * (self.channels + 16))

    def blocks(self, pixels: int, channels: int) -> int:
        return -(-pixels // self.pixels) * -(-channels // self.channels)


# All of them keep within the 48 KiB of shared memory that every architecture gives without asking.
TILES = (
    Tile(128, 128, 2, 4, 3, 2),
    Tile(128, 64, 2, 2, 4, 3),
    Tile(64, 64, 2, 2, 4, 4),
    Tile(64, 32, 4, 1, 4, 4),
    Tile(32, 64, 1, 4, 4, 4),
    Tile(32, 32, 2, 2, 4, 4),
)


def choose_tile(pixels: int, channels: int, groups: int = 1) -> Tile:
    """The least time by a model: rounds of blocks over the processors, each as long as its products and loads.

    channels: of a group.
    """

    def cost(tile: Tile) -> float:
        rounds = -(-groups * tile.blocks(pixels, channels) // _PROCESSORS)
        return rounds * (tile.pixels * tile.channels + 32 * (tile.pixels + tile.channels))

    return min(TILES, key=cost)
