"""Sliding windows of pooling, where padding holds no elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Window:
    """size, strides, dilation: (H, W). padding: top, left, bottom, right. ceil_mode: keep a last window cut off."""

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    ceil_mode: bool

    def outputs(self, height: int, width: int) -> tuple[int, int]:
        """Extents of the result. As in Relax and PyTorch, ceil_mode adds no window that starts behind the input."""
        top, left, bottom, right = self.padding
        first = self._along(height, top, bottom, self.size[0], self.strides[0], self.dilation[0])
        second = self._along(width, left, right, self.size[1], self.strides[1], self.dilation[1])
        return first, second

    def _along(self, extent: int, before: int, after: int, size: int, stride: int, dilation: int) -> int:
        free = extent + before + after - dilation * (size - 1) - 1
        if not self.ceil_mode:
            return free // stride + 1
        last = -(-free // stride)
        return last if last * stride >= extent + before else last + 1


def sum_windows(images: np.ndarray, window: Window) -> np.ndarray:
    """Sum over the valid elements of each window: (N, C, H, W) -> (N, C, OH, OW), in the dtype given."""
    return _reduce(images, window, np.add, images.dtype.type(0))


def max_windows(images: np.ndarray, window: Window) -> np.ndarray:
    """Maximum over the valid elements; the dtype's least value where there is none."""
    least = -np.inf if images.dtype.kind == "f" else np.iinfo(images.dtype).min
    return _reduce(images, window, np.maximum, images.dtype.type(least))


def _reduce(images: np.ndarray, window: Window, combine: np.ufunc, neutral: np.generic) -> np.ndarray:
    n, c, height, width = images.shape
    oh, ow = window.outputs(height, width)
    (kh, kw), (sh, sw), (dh, dw) = window.size, window.strides, window.dilation
    top, left, _, _ = window.padding
    extent_h = max(top + height, (oh - 1) * sh + (kh - 1) * dh + 1)
    extent_w = max(left + width, (ow - 1) * sw + (kw - 1) * dw + 1)
    padded = np.full((n, c, extent_h, extent_w), neutral)
    padded[:, :, top : top + height, left : left + width] = images
    result = np.full((n, c, oh, ow), neutral)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
            result = combine(result, padded[:, :, rows, columns])
    return result
