"""How the elements of a logical tensor lie in a GPU's memory: one axis innermost, its rows padded to whole words.

``channels_last``   images (N, C, H, W) as [N][H][W][pitch], sequences (N, C, W) as [N][W][pitch], matrices (N, C) as
                    [N][pitch]. What pads the channels of codes to the pitch may hold anything: weights for it are zero.
``rows_last``       matrices of more axes (..., K): the last axis innermost.
``plain``           row-major and exact, as ONNX has it: model inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from qcompile.reference.narrow import from_bits, to_bits

TYPES = {
    "bfloat16": "u16",
    "float16": "u16",
    "float8_e4m3fn": "u8",
    "float8_e5m2": "u8",
    "uint8": "u8",
    "int8": "i8",
    "float32": "float",
    "int32": "int",
    "int64": "long long",
    "uint16": "u16",
    "int16": "short",
    "uint32": "u32",
    "uint64": "unsigned long long",
    "float64": "double",
    "bool": "u8",
}
# Floats that are held as bits, and what functions of ``device/`` call them: to_bf16, from_bf16, multiply_bf16.
NARROW = {"bfloat16": "bf16", "float16": "f16", "float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2"}
_BITS = {"u16": "uint16", "u8": "uint8"}


@dataclass(frozen=True, slots=True)
class Storage:
    """Layout of one tensor.

    shape: logical shape, of at least one axis. axis: the innermost one. pitch: elements from one of its rows to the
    next, at least ``shape[axis]``; the other axes follow each other in order, without gaps.
    """

    shape: tuple[int, ...]
    dtype: str
    axis: int
    pitch: int

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    @property
    def rows(self) -> int:
        return prod(self.shape) // max(self.channels, 1)

    @property
    def numel(self) -> int:
        """Elements of the flat buffer."""
        return self.rows * self.pitch

    @property
    def bits(self) -> str:
        """The element type of arrays; of narrow floats their bits."""
        return _BITS[TYPES[self.dtype]] if self.is_narrow else self.dtype

    @property
    def item_bytes(self) -> int:
        return np.dtype(self.bits).itemsize

    @property
    def nbytes(self) -> int:
        return self.numel * self.item_bytes

    @property
    def is_float(self) -> bool:
        return self.dtype == "float32"

    @property
    def is_narrow(self) -> bool:
        return self.dtype in NARROW

    def real(self, element: str) -> str:
        """An element in CUDA C++ as a float, if it is a narrow one; else as it is."""
        return f"from_{NARROW[self.dtype]}({element})" if self.is_narrow else element

    def stored(self, value: str) -> str:
        """A float in CUDA C++ as an element, if that is a narrow one; else as it is."""
        return f"to_{NARROW[self.dtype]}({value})" if self.is_narrow else value

    @property
    def type(self) -> str:
        """The element type in CUDA C++."""
        return TYPES[self.dtype]

    @property
    def others(self) -> tuple[int, ...]:
        """The axes but the innermost, in the order in which they lie."""
        return tuple(a for a in range(len(self.shape)) if a != self.axis)

    @property
    def in_order(self) -> bool:
        """Whether rows and what is in them follow each other as in row-major order."""
        return all(self.shape[a] == 1 for a in range(self.axis + 1, len(self.shape)))

    def at(self, index: Sequence[str]) -> str:
        """The flat index of a logical index, expressions in CUDA C++ both."""
        row = "0"
        for a in self.others:
            row = index[a] if row == "0" else f"({row}) * {self.shape[a]} + {index[a]}"
        return f"({row}) * {self.pitch} + {index[self.axis]}"

    def same_memory(self, other: Storage) -> bool:
        """Whether the buffer of one, read as the other, holds the same elements in row-major order."""
        if self == other:
            return True
        if self.dtype != other.dtype or prod(self.shape) != prod(other.shape):
            return False
        if not (self.in_order and other.in_order):
            return False
        exact = self.pitch == self.channels and other.pitch == other.channels
        return exact or (self.pitch, self.channels) == (other.pitch, other.channels)

    def store(self, logical: np.ndarray) -> np.ndarray:
        """A fresh flat buffer that holds ``logical``; padding is zero."""
        if self.is_narrow:
            return to_bits(replace(self, dtype="float32").store(logical), self.dtype)
        moved = np.moveaxis(np.asarray(logical, self.dtype).reshape(self.shape), self.axis, -1)
        flat = np.zeros((self.rows, self.pitch), self.dtype)
        flat[:, : self.channels] = moved.reshape(self.rows, self.channels)
        return flat.reshape(-1)

    def values(self, flat: np.ndarray) -> np.ndarray:
        """``load``, of narrow floats as float32."""
        logical = self.load(flat)
        return from_bits(logical, self.dtype) if self.is_narrow else logical

    def load(self, flat: np.ndarray) -> np.ndarray:
        """The logical tensor in a flat buffer; of narrow floats their bits."""
        rows = flat[: self.numel].reshape(self.rows, self.pitch)[:, : self.channels]
        moved = rows.reshape(*(self.shape[a] for a in self.others), self.channels)
        return np.ascontiguousarray(np.moveaxis(moved, -1, self.axis))


def pitch_of(channels: int) -> int:
    """Codes a row: whole pieces of 16 bytes, of 4 or 8 for few channels; that is what kernels copy at once."""
    return next((word for word in (4, 8) if channels <= word), -(-channels // 16) * 16)


def _pitch(channels: int, dtype: str) -> int:
    if dtype in NARROW:
        each = 16 // np.dtype(_BITS[TYPES[dtype]]).itemsize  # elements of a piece
        return -(-channels // each) * each
    return pitch_of(channels) if dtype in ("uint8", "int8") else channels


def plain(shape: Sequence[int], dtype: str) -> Storage:
    shape = tuple(shape) or (1,)
    return Storage(shape, dtype, len(shape) - 1, shape[-1])


def channels_last(shape: Sequence[int], dtype: str) -> Storage:
    """Axis 1 innermost; of a vector the only one."""
    shape = tuple(shape) or (1,)
    axis = min(1, len(shape) - 1)
    return Storage(shape, dtype, axis, _pitch(shape[axis], dtype))


def rows_last(shape: Sequence[int], dtype: str) -> Storage:
    shape = tuple(shape) or (1,)
    return Storage(shape, dtype, len(shape) - 1, _pitch(shape[-1], dtype))
