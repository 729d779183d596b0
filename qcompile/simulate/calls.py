"""The kernel calls of a simulation, and where their tensors are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALIGNMENT = 64  # bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is. kind: "input", "weights", "buffer" (of ``Kernels.sizes``), "choice" (of ``choices``).

    offset: bytes from the beginning of that, of the weights as a whole.
    """

    kind: str
    index: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel call. op: what made it, as ``KernelNote`` has it, "" for TVM's own kernels. kernel: its number in
    ``main``. weights: where its constants lie, (offset, bytes, dtype)."""

    name: str
    op: str
    kernel: int
    args: tuple[Place, ...]
    results: tuple[int, ...]
    weights: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class Kernels:
    """All calls in an order in which any choice can be made.

    sizes: bytes of each call's results. choices: layer -> its number; options: by number, where its variants are.
    input_bytes, width: of a row of the program.
    """

    calls: tuple[Call, ...]
    sizes: tuple[int, ...]
    choices: Mapping[str, int]
    options: tuple[tuple[Place, ...], ...]
    input_bytes: tuple[int, ...]
    outputs: tuple[Place, ...]
    width: int
