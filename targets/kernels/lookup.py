"""Tables of 256 entries: scalar loads, or byte permutations where the target has them."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from qcompile.targets.kernels.builder import Buffer, bind, load, splat
from qcompile.targets.target import Target

_PERMUTE = "llvm.x86.avx512.vpermi2var.qi.512"


class Table:
    """The table of one kernel; made once, outside all loops.

    With AVX512-VBMI, its 256 bytes stay in four registers: two permutations select among 128 entries each by the low
    7 bits of 64 codes, a blend chooses by the highest bit.
    """

    def __init__(self, table: Buffer, dtype: str, qmin: int, target: Target):
        """table: 256 entries of ``dtype``, the first for code ``qmin``."""
        self.buffer, self.dtype, self.qmin = table, dtype, qmin
        self.permuted = target.has("avx512vbmi") and dtype != "float32"
        self.lanes = 64 if self.permuted else 16
        if self.permuted:
            self.parts = [bind(tirx.reinterpret("int8x64", load(table, 64 * i, 64))) for i in range(4)]

    def look_up(self, codes: Expr, lanes: int) -> Expr:
        """The entries for a vector of codes."""
        if self.permuted and lanes == 64:
            return self._permute(codes)
        wide = tirx.Cast("int32" if lanes == 1 else f"int32x{lanes}", codes)
        return self.buffer[wide - splat(self.qmin, "int32", lanes) if self.qmin else wide]

    def _permute(self, codes: Expr) -> Expr:
        index = bind(tirx.reinterpret("uint8x64", codes))
        if self.qmin:
            index = index ^ splat(128, "uint8", 64)  # int8 code c is entry c + 128
        signed = tirx.reinterpret("int8x64", index)
        low, high = (
            tirx.call_llvm_pure_intrin("int8x64", _PERMUTE, self.parts[i], signed, self.parts[i + 1]) for i in (0, 2)
        )
        chosen = tirx.Select(index < splat(128, "uint8", 64), low, high)
        return tirx.reinterpret(f"{self.dtype}x64", chosen)
