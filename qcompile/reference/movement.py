"""Relax operators that move, select or trivially combine elements, on codes or floats.

Each function takes the call and its evaluated arguments: arrays, tuples of arrays, numbers, tuples of ints for shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, SupportsInt

import numpy as np
from tvm import relax
from tvm.tirx import IntImm

from qcompile.errors import QCompileError, nearest
from qcompile.reference.windows import Window, max_windows


def reshape(call: relax.Call, x: np.ndarray, *_: Any) -> np.ndarray:
    """Also flatten, expand_dims and squeeze: the result's type says the shape."""
    return x.reshape([int(extent) for extent in call.ty.shape])


def permute_dims(call: relax.Call, x: np.ndarray) -> np.ndarray:
    axes = call.attrs.axes
    return x.transpose(None if axes is None else [int(axis) for axis in axes])


def strided_slice(
    call: relax.Call,
    x: np.ndarray,
    axes: tuple[int, ...],
    begin: tuple[int, ...],
    end: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Negative begin and end count from the end, those beyond the extent are cut to it: as in Python."""
    window = [slice(None)] * x.ndim
    for axis, first, last, step in zip(axes, begin, end, strides or (1,) * len(axes), strict=True):
        window[axis] = slice(first, last, step)
    return x[tuple(window)]


def split(call: relax.Call, x: np.ndarray) -> tuple[np.ndarray, ...]:
    parts = call.attrs.indices_or_sections
    if isinstance(parts, IntImm):
        # Equal parts of ceil(extent / parts); the last may be shorter.
        extent = x.shape[int(call.attrs.axis)]
        step = -(-extent // int(parts))
        indices = list(range(step, extent, step))
    else:
        indices = [int(i) for i in parts]
    return tuple(np.split(x, indices, axis=int(call.attrs.axis)))


def concat(call: relax.Call, tensors: tuple[np.ndarray, ...]) -> np.ndarray:
    axis = call.attrs.axis
    return np.concatenate(tensors, axis=None if axis is None else int(axis))


def take(call: relax.Call, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = call.attrs.axis
    return np.take(x, indices, axis=None if axis is None else int(axis))


def pad(call: relax.Call, x: np.ndarray) -> np.ndarray:
    """Modes constant, reflect (without the edge), replicate (the edge)."""
    widths = np.array([int(w) for w in call.attrs.pad_width]).reshape(-1, 2)
    mode = str(call.attrs.pad_mode)
    if mode == "constant":
        return np.pad(x, widths, constant_values=np.asarray(float(call.attrs.pad_value)).astype(x.dtype))
    modes: dict[str, Literal["reflect", "edge", "wrap"]] = {
        "reflect": "reflect",
        "replicate": "edge",
        "circular": "wrap",
    }
    if mode not in modes:
        raise QCompileError(f"unknown padding mode '{mode}'", remedy=nearest(mode, ["constant", *modes]))
    return np.pad(x, widths, mode=modes[mode])


def max_pool(call: relax.Call, x: np.ndarray) -> np.ndarray:
    """max_pool2d of NCHW and max_pool1d of NCW tensors; padding is ignored."""
    attrs = call.attrs
    size, strides, dilation = _image_pair(attrs.pool_size), _image_pair(attrs.strides), _image_pair(attrs.dilation)
    padding = [int(v) for v in attrs.padding]
    if x.ndim == 3:
        left, right = padding
        window = Window(size, strides, (0, left, 0, right), dilation, bool(attrs.ceil_mode))
        return max_windows(x[:, :, None], window)[:, :, 0]
    top, left, bottom, right = padding
    return max_windows(x, Window(size, strides, (top, left, bottom, right), dilation, bool(attrs.ceil_mode)))


def _image_pair(values: Iterable[SupportsInt]) -> tuple[int, int]:
    """(height, width) of an attribute; a sequence's (width,) is that of an image of height 1."""
    *height, width = (int(v) for v in values)
    return (height[0] if height else 1), width


def nearest_index(size: int, out: int, coordinates: str, rounding: str) -> np.ndarray:
    """The element that each of ``out`` results of a nearest-neighbour resize copies from ``size``: int64 (out,).

    coordinates, rounding: of ``relax.image.resize2d``; the empty rounding is "round" for align_corners, else "floor".
    The product is taken before the quotient, so positions between two pixels are exact ties.
    """
    x = np.arange(out, dtype=np.float64)
    position = {
        "half_pixel": (x + 0.5) * size / out - 0.5,
        "pytorch_half_pixel": (x + 0.5) * size / out - 0.5 if out > 1 else x * 0,
        "asymmetric": x * size / out,
        "align_corners": x * (size - 1) / max(out - 1, 1),
        "tf_half_pixel_for_nn": (x + 0.5) * size / out,
    }
    if coordinates not in position:
        raise QCompileError(f"unknown coordinates '{coordinates}' of a resize", remedy=nearest(coordinates, position))
    epsilon = 1e-5  # TVM's: a position that should be whole may lie just beside it
    rounded: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "round": np.rint,
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
        "floor": lambda p: np.floor(p + epsilon),
        "ceil": lambda p: np.ceil(p - epsilon),
    }
    rounding = rounding or ("round" if coordinates == "align_corners" else "floor")
    if rounding not in rounded:
        raise QCompileError(f"unknown rounding '{rounding}' of a resize", remedy=nearest(rounding, rounded))
    return np.clip(rounded[rounding](position[coordinates]).astype(np.int64), 0, size - 1)


def is_nearest_resize(call: relax.Call) -> bool:
    """Whether a resize2d copies elements (then ``resize_nearest`` computes it)."""
    return str(call.attrs.method) == "nearest_neighbor" and str(call.attrs.layout) == "NCHW"


def resize_nearest(call: relax.Call, x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """image.resize2d, method nearest_neighbor, of (N, C, H, W)."""
    coordinates, rounding = str(call.attrs.coordinate_transformation_mode), str(call.attrs.rounding_method)
    rows, columns = (nearest_index(a, b, coordinates, rounding) for a, b in zip(x.shape[2:], size, strict=True))
    return x[:, :, rows][:, :, :, columns]


def astype(call: relax.Call, x: np.ndarray) -> np.ndarray:
    return x.astype(str(call.attrs.dtype))


def clip(call: relax.Call, x: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(x, np.asarray(low).astype(x.dtype), np.asarray(high).astype(x.dtype))


def _ufunc(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda call, *args: function(*args)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "relax.reshape": reshape,
    "relax.flatten": reshape,
    "relax.expand_dims": reshape,
    "relax.squeeze": reshape,
    "relax.permute_dims": permute_dims,
    "relax.strided_slice": strided_slice,
    "relax.split": split,
    "relax.concat": concat,
    "relax.take": take,
    "relax.nn.pad": pad,
    "relax.nn.max_pool2d": max_pool,
    "relax.nn.max_pool1d": max_pool,
    "relax.image.resize2d": resize_nearest,
    "relax.astype": astype,
    "relax.clip": clip,
    "relax.nn.relu": _ufunc(lambda x: np.maximum(x, x.dtype.type(0))),
    "relax.add": _ufunc(np.add),
    "relax.subtract": _ufunc(np.subtract),
    "relax.multiply": _ufunc(np.multiply),
    "relax.maximum": _ufunc(np.maximum),
    "relax.minimum": _ufunc(np.minimum),
    "relax.negative": _ufunc(np.negative),
}
