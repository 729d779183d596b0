"""GPU rows, and the architectures that a build may be for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qcompile.errors import QCompileError, nearest


@dataclass(frozen=True, slots=True)
class CudaTarget:
    """One row.

    name, description: what ``qcompile targets`` prints. architectures: machine code is made for each, "sm_80".
    ptx: what newer architectures compile at load, "compute_90"; "" for none.
    formats: those of ``qcompile.formats`` that there are kernels of, and the oldest architecture that has them.
    words: what a user's word stands for here, where that is another format: GPUs multiply halves, where CPUs widen
    weights that are stored as such.
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
    formats: tuple[tuple[str, str], ...] = ()
    words: tuple[tuple[str, str], ...] = (("fp16", "half"),)

    def with_threads(self, threads: int) -> CudaTarget:
        if threads != 1:
            raise QCompileError("threads are of a CPU", node=self.name, remedy="leave --threads out")
        return self

    def format(self, word: str) -> str:
        """The format that is meant by a name of one."""
        return dict(self.words).get(word, word)

    @property
    def choice(self) -> tuple[str, ...]:
        """The formats that mixed precision chooses among unless others are named, besides fp32."""
        return tuple(name for name in _CHOICE if not self._older(name))

    def _older(self, name: str) -> list[str]:
        """The architectures that have no kernels of a format that is in ``formats``."""
        least = dict(self.formats)[name]
        return [arch for arch in self.architectures if _number(arch) < _number(least)]

    def check(self, name: str, node: str = "") -> None:
        """Raises ``QCompileError`` unless every architecture has kernels of a format; node: the layer that has it."""
        least = dict(self.formats).get(name)
        if least is None:
            known = ", ".join(name for name, _ in self.formats)
            reason, remedy = f"there are no CUDA kernels of {name}", f"give one of {known}, or build for a CPU target"
            raise QCompileError(reason, node=node or self.name, remedy=remedy)
        if older := self._older(name):
            newer = [arch for arch in self.architectures if arch not in older] or [least]
            reason = f"{name} needs the Tensor Cores of {least} or newer, and this build is for {', '.join(older)}"
            remedy = f"give --target cuda:{','.join(newer)}, or another format"
            raise QCompileError(reason, node=node or self.name, remedy=remedy)

    def narrowed(self, words: str) -> CudaTarget:
        """This row for the architectures that are named, "sm_80,sm_90"."""
        wanted = [word.strip().lower() for word in words.split(",")]
        for word in wanted:
            if word not in self.architectures:
                raise QCompileError(f"no architecture '{word}'", remedy=nearest(word, self.architectures))
        kept = tuple(arch for arch in self.architectures if arch in wanted)
        family = self.name.partition(":")[0]
        return replace(self, name=f"{family}:{','.join(kept)}", architectures=kept, ptx="")

    @property
    def architecture(self) -> str:
        """Of a row of one."""
        (only,) = self.architectures
        return only

    def each(self) -> tuple[CudaTarget, ...]:
        """A row for each architecture alone."""
        return tuple(self.narrowed(arch) for arch in self.architectures)


_CHOICE = ("int8", "w4a8", "half", "fp8_e4m3")

ROWS: tuple[CudaTarget, ...] = (
    CudaTarget(
        name="cuda",
        description="NVIDIA GPUs, Tensor Cores on codes and floats: Turing, Ampere, Ada, Hopper (cuda:sm_90 for one)",
        architectures=("sm_75", "sm_80", "sm_86", "sm_89", "sm_90"),
        ptx="compute_90",
        formats=(
            ("fp32", "sm_75"),
            ("int8", "sm_75"),
            ("w4a8", "sm_75"),
            ("bf16", "sm_75"),
            ("half", "sm_75"),
            ("fp8_e4m3", "sm_89"),
            ("fp8_e5m2", "sm_89"),
            ("w8", "sm_75"),
            ("w4", "sm_75"),
            ("fp16", "sm_75"),
        ),
    ),
)


def _number(architecture: str) -> int:
    return int(architecture.removeprefix("sm_"))
