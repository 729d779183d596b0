"""``Program``: a model as kernels and their launches on one architecture, and the whole text that a compiler gets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from qcompile.manifest import Launch

DEVICE = Path(__file__).parent / "device"
_HEADERS = ("machine.cuh", "arithmetic.cuh", "elements.cuh", "contract.cuh", "grouped.cuh", "depthwise.cuh")


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """kernels: CUDA C++, each kernel ``extern "C"``. launches: in order. weights: uint8, flat. workspace: bytes."""

    kernels: str
    launches: tuple[Launch, ...]
    weights: np.ndarray
    workspace: int

    @property
    def source(self) -> str:
        return templates() + self.kernels


@cache
def templates() -> str:
    """The texts of ``device/`` that kernels use, one after the other: there is nothing to include."""
    return "\n".join((DEVICE / name).read_text(encoding="utf-8") for name in _HEADERS)
