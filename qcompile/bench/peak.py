"""The most that this machine's arithmetic gives: a register tile whose operands never leave the first-level cache.

What a kernel reaches is judged by it. It runs the target's own dot product (or float32 FMAs) exactly as kernels do, so
a share of it can be read as time lost to memory, to loops and to tiles that do not fill the registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qcompile.bench.contenders import Call
from qcompile.bench.interleave import timed_block
from qcompile.formats import format_of

if TYPE_CHECKING:
    from tvm import tirx

    from qcompile.targets.instructions import Dot
    from qcompile.targets.target import Target

_STEPS = 64  # reduction steps until the inputs are read again: at most 20 KiB, and too long a loop to be written out
_INSTRUCTIONS = 1 << 23  # of a call and thread: a millisecond or two


@dataclass(frozen=True, slots=True)
class Peak:
    """The micro-kernel as something that is measured in turns with contenders: see ``measure``.

    target: name of a row. format: "int8" or "fp32". threads: each does the same work.
    """

    target: str
    format: str
    threads: int = 1

    @property
    def label(self) -> str:
        return f"{self.format} peak of {self.target}"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        from qcompile.targets.select import select_target

        return _Tile.of(select_target(self.target), self.format).macs * self.threads

    def gops(self, seconds: float) -> float:
        """Billions of operations a second of a call that took so long; a multiply-accumulate is two."""
        return 2e-9 * self.macs / seconds

    def open(self) -> Call:
        """Compiles it for this process. Raises ``QCompileError`` for an unknown target."""
        import tvm
        from tvm.ir import IRModule

        from qcompile.compile import compile_module
        from qcompile.reference.bfloat16 import to_bits
        from qcompile.runtime.library import use_threads
        from qcompile.targets.select import select_target

        target = select_target(self.target).with_threads(self.threads)
        tile = _Tile.of(target, self.format)
        function = peak_kernel(target, self.format).with_attr("global_symbol", "main")
        run = compile_module(IRModule({"main": function}), target)["main"]
        random = np.random.default_rng(0)
        if tile.dot and tile.dot.sums == "float32":
            x, w = (to_bits(random.random(size, np.float32)) for size in (tile.inputs, tile.weights))
        elif tile.dot:
            x, w = random.integers(0, 256, tile.inputs, np.uint8), random.integers(-128, 128, tile.weights, np.int8)
        else:
            x, w = (random.random(size, np.float32) for size in (tile.inputs, tile.weights))
        y = np.zeros(tile.results * self.threads, tile.accumulator)
        arguments = [tvm.runtime.tensor(array) for array in (x, w, y)]

        def call() -> None:
            if self.threads > 1:
                use_threads(self.threads)
            run(*arguments)

        return call


def measure_peak(target: str, format: str, threads: int = 1, seconds: float = 0.2) -> float:
    """GOPS of the fastest call within ``seconds``."""
    peak = Peak(target, format, threads)
    call = peak.open()
    timed_block(call, seconds / 4)  # until the clock has risen
    return peak.gops(min(timed_block(call, seconds)))


@dataclass(frozen=True, slots=True)
class _Tile:
    """``pixels`` input vectors of each step by ``vectors`` weight vectors, which stay in registers.

    Every step has inputs of its own, or LLVM would compute what does not change once, before the loop.
    """

    dot: Dot | None
    lanes: int
    pixels: int
    vectors: int

    @staticmethod
    def of(target: Target, format: str) -> _Tile:
        from qcompile.targets.kernels.tiling import accumulators

        dots = target.dots_of(format_of(format).activations)
        dot = dots[0] if dots else None
        vectors = target.vector_registers // 8
        pixels = accumulators(target, vectors, dot is not None and dot.group != 4 and not dot.needs, False) // vectors
        return _Tile(dot, target.lanes, pixels, vectors)

    @property
    def group(self) -> int:
        return self.dot.group if self.dot else 1

    @property
    def accumulator(self) -> str:
        return self.dot.sums if self.dot else "float32"

    @property
    def results(self) -> int:
        return self.pixels * self.vectors * self.lanes

    @property
    def inputs(self) -> int:
        return _STEPS * self.pixels * self.lanes * self.group

    @property
    def weights(self) -> int:
        return self.vectors * self.lanes * self.group

    @property
    def passes(self) -> int:
        return _INSTRUCTIONS // (_STEPS * self.pixels * self.vectors)

    @property
    def macs(self) -> int:
        """Of a thread."""
        return self.passes * _STEPS * self.results * self.group


def peak_kernel(target: Target, format: str) -> tirx.PrimFunc:
    """``peak(x, w, y)``: y[pixel][vector] = sum of x[step][pixel] * w[vector] over all steps, many times, by lane."""
    from qcompile.targets.kernels import builder as b

    tile = _Tile.of(target, format)
    dot, lanes, group = tile.dot, tile.lanes, tile.group
    places = [(p, v) for p in range(tile.pixels) for v in range(tile.vectors)]

    def body(x: b.Buffer, w: b.Buffer, y: b.Buffer) -> None:
        with b.loop(target.threads, parallel=True) as thread:
            acc = {place: b.registers(lanes, tile.accumulator) for place in places}
            for buffer in acc.values():
                b.store(buffer, 0, b.splat(0, tile.accumulator, lanes), lanes)
            loaded = [b.bind(b.load(w, v * lanes * group, lanes * group)) for v in range(tile.vectors)]
            weights = [b.bind(dot.widen(vector)) if dot else vector for vector in loaded]
            with b.loop(tile.passes), b.loop(_STEPS) as step:
                for p in range(tile.pixels):
                    vector = b.load(x, (step * tile.pixels + p) * lanes * group, lanes * group)
                    operand = b.bind(dot.each(vector) if dot else vector)
                    for v, weight in enumerate(weights):
                        old = b.load(acc[p, v], 0, lanes)
                        new = dot.accumulate(old, operand, weight) if dot else old + operand * weight
                        b.store(acc[p, v], 0, new, lanes)
            for i, buffer in enumerate(acc.values()):
                b.store(y, thread * tile.results + i * lanes, b.load(buffer, 0, lanes), lanes)

    operands = ("float32", "float32")
    if dot:
        operands = ("uint8", "int8") if dot.sums == "int32" else ("uint16", "uint16")
    sizes = (tile.inputs, tile.weights, tile.results * target.threads)
    return b.kernel(
        "peak", list(zip("xwy", (*operands, tile.accumulator), sizes, strict=True)), body, dot.llvm if dot else ""
    )
