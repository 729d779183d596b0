"""ARM rows (AArch64, Linux): one a level of the architecture, best first, and one a core, with its caches.

SVE is switched off: vectors are 128 bits wide on most cores that have it, and some systems forbid it.
"""

from __future__ import annotations

from dataclasses import replace

from qcompile.targets.arm_dots import sdot, smmla, smull
from qcompile.targets.target import Target

_NEON = Target(
    name="arm-neon",
    description="ARMv8.0 NEON: Raspberry Pi 3 and 4 (exact 16-bit products)",
    mcpu="generic",
    mattr=("+neon",),
    features=("asimd",),
    optional=(),
    vector_bits=128,
    vector_registers=32,
    dots=(smull(),),
    l1_bytes=32 << 10,
    l2_bytes=512 << 10,
    triple="aarch64-linux-gnu",
    activation="int8",
)
_DOTPROD = replace(
    _NEON,
    name="arm-dotprod",
    description="NEON and dot products: Raspberry Pi 5, phones since 2018, Graviton 2, Ampere Altra",
    mattr=("+neon", "+dotprod"),
    features=("asimd", "asimddp"),
    dots=(sdot(),),
)
_I8MM = replace(
    _DOTPROD,
    name="arm-i8mm",
    description="NEON, dot products and matrix products: Graviton 3 and 4, Grace, phones since 2022, Apple M2",
    mattr=("+neon", "+dotprod", "+i8mm"),
    features=("asimd", "asimddp", "i8mm"),
    matrix=smmla(),
    l1_bytes=64 << 10,
    l2_bytes=1 << 20,
)
ROWS: tuple[Target, ...] = (_I8MM, _DOTPROD, _NEON)

# What LLVM may use of ARMv8.2-A when it compiles for a core by name.
_V82 = ("asimd", "asimddp", "fphp", "asimdhp", "atomics", "asimdrdm", "lrcpc", "crc32")


def _core(row: Target, name: str, description: str, l1_kib: int, l2_kib: int) -> Target:
    """A row tuned for one core; ``name`` is LLVM's."""
    return replace(
        row,
        name=name,
        description=description,
        mcpu=name,
        mattr=("-sve",),
        features=row.features if row is _NEON else tuple(dict.fromkeys((*row.features, *_V82))),
        l1_bytes=l1_kib << 10,
        l2_bytes=l2_kib << 10,
    )


CORES: tuple[Target, ...] = (
    _core(_NEON, "cortex-a53", "Raspberry Pi 3, i.MX 8M", 32, 512),
    _core(_NEON, "cortex-a72", "Raspberry Pi 4, Graviton", 32, 1024),
    _core(_DOTPROD, "cortex-a55", "small cores of phones since 2018, RK3588", 32, 256),
    _core(_DOTPROD, "cortex-a76", "Raspberry Pi 5, RK3588", 64, 512),
    _core(_DOTPROD, "cortex-a78", "phones of 2021, Jetson Orin", 64, 512),
    _core(_DOTPROD, "neoverse-n1", "Graviton 2, Ampere Altra", 64, 1024),
    _core(_I8MM, "neoverse-v1", "Graviton 3", 64, 1024),
    _core(_I8MM, "neoverse-n2", "Azure Cobalt 100, Alibaba Yitian 710", 64, 1024),
    _core(_I8MM, "neoverse-v2", "Graviton 4, NVIDIA Grace", 64, 2048),
    _core(_I8MM, "cortex-a710", "phones of 2022", 64, 512),
)
