"""x86 rows, best first, and the choice among them for this machine."""

from __future__ import annotations

from qcompile.targets.instructions import vdpbf16ps, vpdpbusd, vpmaddwd
from qcompile.targets.target import Target

_AVX2 = ("avx2", "fma", "f16c", "bmi1", "bmi2", "movbe")
_AVX512 = (*_AVX2, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")

ROWS: tuple[Target, ...] = (
    Target(
        name="x86-vnni",
        description="AVX512-VNNI: Cascade Lake, Ice Lake, Sapphire Rapids, Zen 4 and later",
        mcpu="x86-64-v4",
        mattr=("+avx512vnni",),
        features=(*_AVX512, "avx512_vnni"),
        optional=(("avx512vbmi", "avx512vbmi"), ("avx512_bf16", "avx512bf16")),
        vector_bits=512,
        vector_registers=32,
        dots=(vpdpbusd(512), vpdpbusd(256), vpdpbusd(128)),
        bfloat16=(vdpbf16ps(512), vdpbf16ps(256), vdpbf16ps(128)),
        l1_bytes=32 << 10,
        l2_bytes=1 << 20,
    ),
    Target(
        name="x86-avxvnni",
        description="AVX-VNNI, 256 bits: Alder Lake and later without AVX-512",
        mcpu="x86-64-v3",
        mattr=("+avxvnni",),
        features=(*_AVX2, "avx_vnni"),
        optional=(),
        vector_bits=256,
        vector_registers=16,
        dots=(vpdpbusd(256), vpdpbusd(128)),
        l1_bytes=32 << 10,
        l2_bytes=1 << 20,
    ),
    Target(
        name="x86-avx512",
        description="AVX-512 without VNNI: Skylake-SP (exact 16-bit products)",
        mcpu="x86-64-v4",
        mattr=(),
        features=_AVX512,
        optional=(),
        vector_bits=512,
        vector_registers=32,
        dots=(vpmaddwd(512), vpmaddwd(256), vpmaddwd(128)),
        l1_bytes=32 << 10,
        l2_bytes=1 << 20,
    ),
    Target(
        name="x86-avx2",
        description="AVX2: Haswell, Zen 1 and later (exact 16-bit products)",
        mcpu="x86-64-v3",
        mattr=(),
        features=_AVX2,
        optional=(),
        vector_bits=256,
        vector_registers=16,
        dots=(vpmaddwd(256), vpmaddwd(128)),
        l1_bytes=32 << 10,
        l2_bytes=256 << 10,
    ),
)
