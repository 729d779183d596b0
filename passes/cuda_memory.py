"""What lowering to CUDA collects: pieces of memory, launches, the texts of kernels, and constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from qcompile.passes.plan_memory import Lifetime, plan_memory
from qcompile.targets.cuda.text import NAME, Kernel

ALIGNMENT, SLACK = 256, 256  # bytes: what cuMemAlloc gives; behind the last buffer


@dataclass(slots=True)
class Buffer:
    """A piece of memory: an input or output of the model, a constant, or an intermediate that is live a while."""

    memory: str
    size: int = 0
    offset: int = 0
    first: int = -1
    last: int = 0


@dataclass(slots=True)
class Call:
    """A launch. name: the variable that it makes. written: so many of its buffers are, the last ones."""

    name: str
    kernel: str
    launch: Kernel
    buffers: list[Buffer]
    written: int


@dataclass(slots=True)
class Kernels:
    """The kernels of a module, or of several; equal texts have one name."""

    names: dict[tuple[str, str], str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def add(self, op: str, text: str) -> str:
        if (op, text) not in self.names:
            name = f"{op}_{sum(other == op for other, _ in self.names)}"
            self.names[op, text] = name
            self.texts.append(text.replace(NAME, name))
        return self.names[op, text]

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


@dataclass(slots=True)
class Constants:
    """The constants of a module, one after the other; equal ones are stored once, whichever architectures read them."""

    blob: bytearray = field(default_factory=bytearray)
    known: dict[bytes, Buffer] = field(default_factory=dict)

    def add(self, value: np.ndarray) -> Buffer:
        data = np.ascontiguousarray(value).tobytes()
        if data not in self.known:
            self.blob.extend(bytes(-len(self.blob) % 16))
            self.known[data] = Buffer("weights", len(data), len(self.blob))
            self.blob.extend(data)
        return self.known[data]

    @property
    def weights(self) -> np.ndarray:
        return np.frombuffer(bytes(self.blob) + bytes(SLACK), np.uint8)


def plan_workspace(calls: Sequence[Call]) -> int:
    """Gives every intermediate its offset; the bytes that they take in all. Several calls may write one buffer."""
    written = {id(b): b for call in calls for b in call.buffers[-call.written :]}
    intermediate = [b for b in written.values() if b.memory == "workspace"]
    lifetimes = [Lifetime(-(-b.size // ALIGNMENT) * ALIGNMENT, b.first, b.last) for b in intermediate]
    offsets, total = plan_memory(lifetimes)
    for buffer, offset in zip(intermediate, offsets, strict=True):
        buffer.offset = offset
    return total
