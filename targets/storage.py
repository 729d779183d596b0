"""How the elements of a logical tensor lie in memory. Chosen once for the whole graph (``passes.assign_storage``).

Every buffer is a flat array; a ``Storage`` turns a logical index into a flat one. Two layouts:

``plain``    row-major, exact, as ONNX has it. Model inputs and outputs, matrices, float islands.
``blocked``  images (N, C, H, W) and sequences (N, C, W), as [N][C/block][top + H + bottom][left + W + right][block].
             A vector of one pixel's ``block`` channels is contiguous, for any vector width. The border is written by
             the producer with ``fill`` (the zero point), on every run, so that convolutions need no bounds checks.
             Channels that pad C to a multiple of ``block`` hold anything: weights for them are zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from qcompile.reference.bfloat16 import from_bits, to_bits

BLOCK = 16  # channels a block, for every target: one 512-bit vector of int32, two of 256 bits, four of 128 bits
SLACK = 64  # bytes readable behind any buffer: kernels may load whole vectors across its end


@dataclass(frozen=True, slots=True)
class Storage:
    """Layout of one tensor.

    shape: logical shape. dtype: of elements; "bfloat16" is its bits in code. block: channels a block, 0 for plain.
    border: top, left, bottom, right elements around each (H, W) plane (blocked only). fill: their value.
    """

    shape: tuple[int, ...]
    dtype: str
    block: int = 0
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    fill: float = 0

    def __post_init__(self) -> None:
        if self.block and len(self.shape) not in (3, 4):
            raise ValueError(f"blocked storage is for (N, C, W) and (N, C, H, W), not {self.shape}")
        if not self.block and any(self.border):
            raise ValueError("only blocked storage has a border")

    @property
    def blocked(self) -> bool:
        return self.block > 0

    @property
    def image(self) -> tuple[int, int, int, int]:
        """(N, C, H, W) of a blocked tensor; a sequence has H = 1."""
        n, c, *spatial = self.shape
        h, w = spatial if len(spatial) == 2 else (1, spatial[0])
        return n, c, h, w

    @property
    def blocks(self) -> int:
        """Channel blocks of a blocked tensor."""
        return -(-self.shape[1] // self.block)

    @property
    def row(self) -> int:
        """Elements from one pixel to the pixel below it."""
        return (self.image[3] + self.border[1] + self.border[3]) * self.block

    @property
    def plane(self) -> int:
        """Elements from one channel block to the next."""
        return (self.image[2] + self.border[0] + self.border[2]) * self.row

    @property
    def numel(self) -> int:
        """Elements of the flat buffer."""
        return self.image[0] * self.blocks * self.plane if self.blocked else prod(self.shape)

    @property
    def bits(self) -> str:
        """The element type in code and buffers."""
        return "uint16" if self.dtype == "bfloat16" else self.dtype

    @property
    def is_float(self) -> bool:
        return "float" in self.dtype

    @property
    def item_bytes(self) -> int:
        return np.dtype(self.bits).itemsize

    @property
    def nbytes(self) -> int:
        return self.numel * self.item_bytes

    @property
    def contiguous_pixels(self) -> bool:
        """Whether a channel block's pixels follow each other without gaps, row after row."""
        return self.border[1] == self.border[3] == 0

    def pixel(self, n: Any, block: Any, h: Any, w: Any) -> Any:
        """Flat index of channel 0 of ``block`` at a pixel; ints or TIR expressions. h, w may point into the border."""
        top, left, _, _ = self.border
        return (n * self.blocks + block) * self.plane + (h + top) * self.row + (w + left) * self.block

    def at(self, *index: Any) -> Any:
        """Flat index of a logical index; ints or TIR expressions."""
        if self.blocked:
            n, c, *spatial = index
            h, w = spatial if len(spatial) == 2 else (0, spatial[0])
            return self.pixel(n, c // self.block, h, w) + c % self.block
        flat: Any = 0
        for extent, i in zip(self.shape, index, strict=True):
            flat = flat * extent + i
        return flat

    def view(self, flat: np.ndarray) -> np.ndarray:
        """The logical tensor in a flat buffer: a view for plain storage and whole channel blocks, else a copy.

        Of bfloat16 its values as float32, always a copy.
        """
        if self.dtype == "bfloat16":
            return replace(self, dtype="float32").view(from_bits(flat))
        if not self.blocked:
            return flat[: self.numel].reshape(self.shape)
        n, c, h, w = self.image
        top, left, bottom, right = self.border
        full = flat[: self.numel].reshape(n, self.blocks, h + top + bottom, w + left + right, self.block)
        inner = full[:, :, top : top + h, left : left + w].transpose(0, 1, 4, 2, 3)
        return inner.reshape(n, self.blocks * self.block, h, w)[:, :c].reshape(self.shape)

    def store(self, logical: np.ndarray) -> np.ndarray:
        """A fresh flat buffer that holds ``logical``, borders filled; padding channels are zero."""
        if self.dtype == "bfloat16":
            return to_bits(replace(self, dtype="float32").store(logical))
        if not self.blocked:
            return np.ascontiguousarray(logical, dtype=self.dtype).reshape(-1)
        n, c, h, w = self.image
        top, left, bottom, right = self.border
        full = np.full((n, self.blocks, h + top + bottom, w + left + right, self.block), self.fill, self.dtype)
        channels = np.zeros((n, self.blocks * self.block, h, w), self.dtype)
        channels[:, :c] = np.asarray(logical).reshape(n, c, h, w)
        inner = channels.reshape(n, self.blocks, self.block, h, w).transpose(0, 1, 3, 4, 2)
        full[:, :, top : top + h, left : left + w] = inner
        return full.reshape(-1)

    def with_border(self, border: tuple[int, int, int, int]) -> Storage:
        return replace(self, border=border)
