"""What the choice of a tile must know of each GPU architecture, as data.

Numbers are NVIDIA's own where it gives them: shared memory, threads and registers of compute capabilities from the CUDA
C++ Programming Guide, table "Technical Specifications per Compute Capability"; multiprocessors and int8 rates from the
whitepapers (Turing: T4; Ampere: A100, GA102; Ada; Hopper: H100 SXM), operations / (2 * clock * multiprocessors).
An architecture has cards of many sizes; ``processors`` is that of one that servers have, and tuning tells the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row, of one multiprocessor where nothing else is said.

    name: "sm_80". processors: multiprocessors of a card. macs: int8 multiply-accumulates a cycle by mma.sync.
    shared_bytes: shared memory of all blocks together; block_shared: of one block, at most, when it asks.
    threads, blocks: at once. l2_bytes: that come from the L2 cache in a cycle. copies: whether it has cp.async.
    hertz: of a card under load. memory: bytes a second from and to its memory.
    slower: types whose products by mma.sync take so many times as long as those of codes of as many bytes.
    """

    name: str
    processors: int
    macs: int
    shared_bytes: int
    block_shared: int
    threads: int
    blocks: int
    l2_bytes: int
    copies: bool
    hertz: float
    memory: float
    slower: tuple[tuple[str, float], ...] = ()

    def rated(self, dtype: str) -> Architecture:
        """This row with the rate of products of a type, counted in bytes as those of codes are."""
        return replace(self, macs=round(self.macs / dict(self.slower).get(dtype, 1)))

    @property
    def multiplies_float32(self) -> bool:
        """Whether Tensor Cores make products of float32."""
        return "float32" in dict(self.slower)


_KIB = 1 << 10
# Hopper's mma.sync reaches 62 % of what its wgmma does: Luo et al., "Benchmarking and Dissecting the Nvidia Hopper GPU
# Architecture via Microbenchmarking", 2024. L2: 1.3 TB/s of a T4 (Jia et al., "Dissecting the NVidia Turing T4 GPU via
# Microbenchmarking", 2019), 5 to 6 TB/s of A100 and H100 (Chips and Cheese, 2023), the others taken for a T4's; all
# rounded.
# Memory: data sheets of T4, A100 40 GB, A10, L40 and H100 SXM.
# Turing multiplies no bfloat16: by the instructions of ``multiply_bf16``. Hopper's mma.sync makes halves of 8-bit
# floats first, as its machine code shows (F2FP, HMMA); its own products of them are wgmma's alone.
# Of float32 each product is three of TF32, see ``multiply_f32``; Turing has none of those.
_FLOAT32 = (("float32", 3.0),)
_HOPPER = (*_FLOAT32, ("float8_e4m3fn", 2.0), ("float8_e5m2", 2.0))
ARCHITECTURES = (
    Architecture("sm_75", 40, 1024, 64 * _KIB, 64 * _KIB, 1024, 16, 20, False, 1.3e9, 320e9, (("bfloat16", 12),)),
    Architecture("sm_80", 108, 2048, 164 * _KIB, 163 * _KIB, 2048, 32, 32, True, 1.4e9, 1555e9, _FLOAT32),
    Architecture("sm_86", 72, 1024, 100 * _KIB, 99 * _KIB, 1536, 16, 20, True, 1.6e9, 600e9, _FLOAT32),
    Architecture("sm_89", 142, 1024, 100 * _KIB, 99 * _KIB, 1536, 24, 20, True, 2.2e9, 864e9, _FLOAT32),
    Architecture("sm_90", 132, 2560, 228 * _KIB, 227 * _KIB, 2048, 32, 32, True, 1.7e9, 3350e9, _HOPPER),
)


def architecture(name: str) -> Architecture:
    """Raises ``KeyError`` for one that is not there."""
    return {row.name: row for row in ARCHITECTURES}[name]
