"""Buffers as generated code wants them: on 64-byte boundaries, weights mapped from their file."""

from __future__ import annotations

import mmap
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

ALIGNMENT = 64  # TVM compiles loads and stores of arguments for this
SLACK = 64  # kernels may read whole vectors across the end of a buffer


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialized C-contiguous array that starts on a 64-byte boundary, with 64 readable bytes behind its end."""
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    memory = np.empty(ALIGNMENT + size + SLACK, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def is_aligned(array: np.ndarray) -> bool:
    return array.ctypes.data % ALIGNMENT == 0


def map_file(path: Path) -> np.ndarray:
    """The bytes of a file as a flat uint8 array, mapped: pages are read on first use and shared between processes.

    The mapping is private and copy-on-write, because DLPack hands out writable memory only; nothing writes to it.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:
            return aligned_empty((0,), np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
