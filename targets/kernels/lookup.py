"""Tables of 256 entries: scalar loads, or byte permutations where the target has them."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr

from qcompile.targets.kernels.builder import Buffer, bind, cast, load, splat
from qcompile.targets.kernels.transpose import shuffle
from qcompile.targets.target import Target

_PERMUTE = "llvm.x86.avx512.vpermi2var.qi.512"
_PERMUTED = {"avx512bw": 64, "avx2": 32, "asimd": 16}  # feature -> codes that its instructions look up at a time
_SHUFFLE = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b"}


class Table:
    """The table of one kernel; made once, outside all loops.

    AVX512-VBMI keeps its 256 bytes in four registers: two permutations select among 128 entries each by the low 7 bits
    of 64 codes, a blend chooses by the highest bit. Without it, byte shuffles look the low 4 bits up in all 16 rows of
    16 entries, and blends choose among the rows by the other bits, one bit after the other. NEON keeps the table in 16
    registers: each of four instructions looks 16 codes up among 64 entries, and leaves alone what lies outside.
    """

    def __init__(self, table: Buffer, dtype: str, qmin: int, target: Target):
        """table: 256 entries of ``dtype``, the first for code ``qmin``."""
        self.buffer, self.dtype, self.qmin = table, dtype, qmin
        # Codes that are permuted at a time; float32 entries are loaded one by one.
        sizes = (size for feature, size in _PERMUTED.items() if target.has(feature) and dtype != "float32")
        self.permuted = next(sizes, 0)
        self.lanes = self.permuted or 16
        self._choose = self._shuffle
        if self.permuted == 16:
            self.parts, self._choose = self._loaded(16), self._look_up_quarters
        elif self.permuted == 64 and target.has("avx512vbmi"):
            self.parts, self._choose = self._loaded(64), self._permute

    def _loaded(self, size: int) -> list[Expr]:
        return [bind(tirx.reinterpret(f"int8x{size}", load(self.buffer, at, size))) for at in range(0, 256, size)]

    def look_up(self, codes: Expr, lanes: int) -> Expr:
        """The entries for a vector of codes."""
        if lanes != self.permuted:
            wide = cast("int32", codes, lanes)
            return self.buffer[wide - splat(self.qmin, "int32", lanes) if self.qmin else wide]
        index = bind(tirx.reinterpret(f"uint8x{lanes}", codes))
        if self.qmin:
            index = bind(index ^ splat(128, "uint8", lanes))  # int8 code c is entry c + 128
        return tirx.reinterpret(f"{self.dtype}x{lanes}", self._choose(index))

    def _look_up_quarters(self, index: Expr) -> Expr:
        found = None
        for quarter in range(4):
            offset = index - splat(64 * quarter, "uint8", 16) if quarter else index
            operands = [*self.parts[4 * quarter : 4 * quarter + 4], tirx.reinterpret("int8x16", offset)]
            if found is not None:
                operands.insert(0, found)
            name = f"llvm.aarch64.neon.tb{'l' if found is None else 'x'}4.v16i8"
            found = bind(tirx.call_llvm_pure_intrin("int8x16", name, *operands))
        return found

    def _permute(self, index: Expr) -> Expr:
        signed = tirx.reinterpret("int8x64", index)
        low, high = (
            tirx.call_llvm_pure_intrin("int8x64", _PERMUTE, self.parts[i], signed, self.parts[i + 1]) for i in (0, 2)
        )
        return tirx.Select(index < splat(128, "uint8", 64), low, high)

    def _shuffle(self, index: Expr) -> Expr:
        lanes = self.permuted
        low_bits = bind(tirx.reinterpret(f"int8x{lanes}", index & splat(15, "uint8", lanes)))
        rows = []
        for i in range(16):
            entries = bind(load(self.buffer, 16 * i, 16))
            row = shuffle([entries] * (lanes // 16), list(range(lanes)))
            row = tirx.reinterpret(f"int8x{lanes}", row)
            rows.append(bind(tirx.call_llvm_pure_intrin(f"int8x{lanes}", _SHUFFLE[lanes], row, low_bits)))
        for bit in (16, 32, 64, 128):
            is_set = (index & splat(bit, "uint8", lanes)) != splat(0, "uint8", lanes)  # TVM binds no vector of bool
            rows = [bind(tirx.Select(is_set, b, a)) for a, b in zip(rows[::2], rows[1::2], strict=True)]
        return rows[0]
