"""Arrays in a GPU's memory: what torch and cupy hand over and take, without a copy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_CUDA = 2  # kDLCUDA
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}  # DLDataTypeCode by numpy's kind


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_handed: dict[int, tuple[Any, ...]] = {}  # address of what was handed out -> what must live as long


@_DELETER
def _returned(managed: Any) -> None:
    _handed.pop(ctypes.addressof(managed.contents), None)


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array. Whoever reads it through DLPack or ``__cuda_array_interface__`` shares its memory.

    pointer: address on the GPU ``device``. owner: what keeps that memory. load: copies it to the host.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype
    device: int
    owner: Any = field(repr=False)
    load: Callable[[DeviceArray], np.ndarray] = field(repr=False)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        data = (self.pointer, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": data, "strides": None, "version": 3}

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self.device

    def __dlpack__(self, **_: Any) -> Any:
        """A capsule "dltensor"; the array lives until its receiver is done with it."""
        shape = (ctypes.c_int64 * len(self.shape))(*self.shape)
        managed = _Managed()
        tensor = managed.tensor
        tensor.data, tensor.device_type, tensor.device_id, tensor.ndim = self.pointer, _CUDA, self.device, len(shape)
        tensor.code, tensor.bits, tensor.lanes = _CODES[self.dtype.kind], 8 * self.dtype.itemsize, 1
        tensor.shape = ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64))
        managed.deleter = ctypes.cast(_returned, ctypes.c_void_p)
        _handed[ctypes.addressof(managed)] = (managed, shape, self)
        return _api.PyCapsule_New(ctypes.addressof(managed), b"dltensor", None)

    def numpy(self) -> np.ndarray:
        """A copy on the host."""
        return self.load(self)


@dataclass(frozen=True, slots=True)
class Seen:
    """Another library's array. contiguous: whether it lies row by row, without gaps. keep: what keeps its memory."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype
    contiguous: bool
    keep: Any


def is_on_device(array: Any) -> bool:
    """Whether an object is an array in a GPU's memory."""
    if hasattr(array, "__cuda_array_interface__"):
        return True
    device = getattr(array, "__dlpack_device__", None)
    return device is not None and device()[0] == _CUDA


def seen(array: Any) -> Seen:
    """What an array in a GPU's memory says of itself, by ``__cuda_array_interface__`` or else by DLPack."""
    if hasattr(array, "__cuda_array_interface__"):
        about = array.__cuda_array_interface__
        dtype = np.dtype(about["typestr"])
        steps = about.get("strides")
        strides = None if steps is None else tuple(s // dtype.itemsize for s in steps)
        return Seen(about["data"][0], tuple(about["shape"]), dtype, _contiguous(about["shape"], strides), array)
    capsule = array.__dlpack__()
    tensor = _Managed.from_address(_api.PyCapsule_GetPointer(capsule, b"dltensor")).tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    kind = next((kind for kind, code in _CODES.items() if code == tensor.code), "V")
    dtype = np.dtype(f"{kind}{tensor.bits // 8}")
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    pointer = (tensor.data or 0) + tensor.byte_offset
    return Seen(pointer, shape, dtype, _contiguous(shape, strides), (array, capsule))


def _contiguous(shape: Any, strides: tuple[int, ...] | None) -> bool:
    if strides is None:
        return True
    expected = 1
    for extent, stride in zip(reversed(tuple(shape)), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True
