"""``Target``: all that the compiler knows of a machine, as data. Rows stand in ``targets.x86`` and ``targets.arm``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qcompile.targets.instructions import narrowest, widened_bfloat16

if TYPE_CHECKING:
    import tvm

    from qcompile.targets.instructions import Dot


@dataclass(frozen=True, slots=True)
class Target:
    """One row.

    name, description: what ``qcompile targets`` prints.
    mcpu, mattr: LLVM's names of the baseline and what is added to it. Never "native": a build must not know the host.
    features: what a CPU must have to run the code, in the words of /proc/cpuinfo; the runner checks them.
    optional: features that code may use when a row is extended by them (``x86-vnni+avx512_vbmi``), with LLVM's name.
    vector_bits, vector_registers: widest vectors that pay, and how many of them there are.
    dots: the 8-bit dot-product instruction of convolutions and matmuls, at its widest and narrower, for few channels.
    matrix: what takes the place of ``dots`` in layers with several pixels (rows) of codes, if the row has it.
    bfloat16: the same of bfloat16, if the features that it needs are there; else float32 products do.
    l1_bytes, l2_bytes: data cache sizes that default tiles are chosen for.
    threads: threads that the code is compiled for.
    activation: how 8-bit activations are stored: "uint8" for dot products of unsigned by signed codes, else "int8".
    """

    name: str
    description: str
    mcpu: str
    mattr: tuple[str, ...]
    features: tuple[str, ...]
    optional: tuple[tuple[str, str], ...]
    vector_bits: int
    vector_registers: int
    dots: tuple[Dot, ...]
    l1_bytes: int
    l2_bytes: int
    triple: str = "x86_64-linux-gnu"
    threads: int = 1
    activation: str = "uint8"
    bfloat16: tuple[Dot, ...] = ()
    matrix: Dot | None = None

    @property
    def lanes(self) -> int:
        """32-bit lanes of a vector."""
        return self.vector_bits // 32

    @property
    def dot(self) -> Dot:
        """The widest dot product."""
        return self.dots[0]

    def dots_of(self, activations: str) -> tuple[Dot, ...]:
        """The dot product of activations of a dtype, at its widest and narrower; none of float32."""
        if activations == "float32":
            return ()
        if activations != "bfloat16":
            return self.dots
        usable = tuple(dot for dot in self.bfloat16 if self.has(dot.needs))
        return usable or tuple(widened_bfloat16(32 * dot.lanes) for dot in self.dots)

    def dot_for(self, channels: int, activations: str) -> Dot | None:
        """The narrowest dot product that holds this many output channels, the widest for more; None in float32."""
        return narrowest(self.dots_of(activations), channels)

    def has(self, feature: str) -> bool:
        return feature in self.features

    @property
    def extras(self) -> tuple[str, ...]:
        """Optional features that are switched on."""
        return tuple(word for word, _ in self.optional if word in self.features)

    def extended(self, *features: str) -> Target:
        """This row with optional features switched on."""
        llvm = dict(self.optional)
        new = tuple(f for f in features if f not in self.features)
        return replace(
            self,
            name="+".join([self.name, *new]),
            features=(*self.features, *new),
            mattr=(*self.mattr, *(f"+{llvm[f]}" for f in new)),
        )

    @property
    def choice(self) -> tuple[str, ...]:
        """The formats that mixed precision chooses among unless others are named, besides fp32."""
        return ("int8", "w4a8", "bf16")

    def format(self, word: str) -> str:
        """The format that is meant by a name of one: itself, see ``CudaTarget.words``."""
        return word

    def check(self, name: str, node: str = "") -> None:
        """Nothing: a CPU computes every format, those that it has no instructions for in float32 on rounded numbers."""

    def with_threads(self, threads: int) -> Target:
        return replace(self, threads=threads)

    def tvm_target(self) -> tvm.target.Target:
        from tvm.target import Target as TVMTarget

        return TVMTarget(
            {
                "kind": "llvm",
                "mtriple": self.triple,
                "mcpu": self.mcpu,
                "mattr": list(self.mattr),
                "num-cores": self.threads,
                # TVM tags each buffer variable's accesses as disjoint from all others'. With kernels inlined into the
                # entry function that is false: the same workspace is one kernel's result and the next one's input.
                "cl-opt": ["-enable-tbaa:bool=0"],
            }
        )
