"""GPU rows, and the architectures that a build may be for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcompile.errors import QCompileError, nearest


@dataclass(frozen=True, slots=True)
class CudaTarget:
    """One row.

    name, description: what ``qcompile targets`` prints. architectures: machine code is made for each, "sm_80".
    ptx: what newer architectures compile at load, "compute_90"; "" for none.
    formats: names of those that there are kernels of, see ``qcompile.formats``.
    features, optional, threads: as ``targets.target.Target`` has them; a GPU needs no words of /proc/cpuinfo.
    """

    name: str
    description: str
    architectures: tuple[str, ...]
    ptx: str
    triple: str = "nvptx64-nvidia-cuda"
    features: tuple[str, ...] = ()
    optional: tuple[tuple[str, str], ...] = ()
    threads: int = 1
    formats: tuple[str, ...] = ("int8", "fp32", "bf16")

    def with_threads(self, threads: int) -> CudaTarget:
        if threads != 1:
            raise QCompileError("threads are of a CPU", node=self.name, remedy="leave --threads out")
        return self

    def narrowed(self, words: str) -> CudaTarget:
        """This row for the architectures that are named, "sm_80,sm_90"."""
        wanted = [word.strip().lower() for word in words.split(",")]
        for word in wanted:
            if word not in self.architectures:
                raise QCompileError(f"no architecture '{word}'", remedy=nearest(word, self.architectures))
        kept = tuple(arch for arch in self.architectures if arch in wanted)
        family = self.name.partition(":")[0]
        return replace(self, name=f"{family}:{','.join(kept)}", architectures=kept, ptx="")

    def each(self) -> tuple[CudaTarget, ...]:
        """A row for each architecture alone."""
        return tuple(self.narrowed(arch) for arch in self.architectures)


ROWS: tuple[CudaTarget, ...] = (
    CudaTarget(
        name="cuda",
        description="NVIDIA GPUs, Tensor Cores on codes: Turing, Ampere, Ada, Hopper (cuda:sm_90 for one of them)",
        architectures=("sm_75", "sm_80", "sm_86", "sm_89", "sm_90"),
        ptx="compute_90",
    ),
)
