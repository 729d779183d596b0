"""``Quant``: scale and zero point of an integer tensor in an ONNX file, and what they make of codes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qcompile.plan import TensorPlan

ACTIVATION_DTYPES = ("uint8", "int8")


@dataclass(frozen=True, slots=True, eq=False)
class Quant:
    """``real = scale * (code - zero)``; one pair, or one for each slice along ``axis``.

    scale: float, zero: int64, both of one element or of the extent of ``axis``. dtype: of the codes.
    block: elements along ``axis`` that share a pair (blocked quantization, opset 21; scale has the rank of the tensor
    then), 0 for none.
    """

    scale: np.ndarray
    zero: np.ndarray
    dtype: str
    axis: int | None = None
    block: int = 0

    @staticmethod
    def of(scale: np.ndarray, zero: np.ndarray | None, dtype: str, axis: int, rank: int, block: int = 0) -> Quant:
        """``axis`` counts only if there is more than one scale. ``rank`` of the tensor, to count it from the front."""
        zero = np.zeros(scale.shape, np.int64) if zero is None else zero.astype(np.int64)
        if block:
            return Quant(scale, zero, dtype, axis % rank, block)
        scale = scale.reshape(-1)
        zero = np.broadcast_to(zero.reshape(-1), scale.shape)
        return Quant(scale, zero, dtype, axis % rank if scale.size > 1 else None)

    @property
    def per_tensor(self) -> bool:
        return self.axis is None

    @property
    def limits(self) -> tuple[int, int]:
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)

    @property
    def real_limits(self) -> tuple[float, float]:
        """Smallest and largest real value of a per-tensor quantization."""
        low, high = self.limits
        scale, zero = float(self.scale[0]), int(self.zero[0])
        return scale * (low - zero), scale * (high - zero)

    def same(self, other: Quant) -> bool:
        return (
            (self.dtype, self.axis, self.block) == (other.dtype, other.axis, other.block)
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero, other.zero)
        )

    def dequantize(self, codes: np.ndarray) -> np.ndarray:
        """Real values, in the dtype of the scale."""
        scale, zero = self._aligned(codes.ndim, codes.shape)
        return ((codes.astype(np.int64) - zero).astype(scale.dtype) * scale).astype(scale.dtype)

    def quantize(self, real: np.ndarray) -> np.ndarray:
        """Codes, rounded half to even and saturated, as ONNX's QuantizeLinear."""
        scale, zero = self._aligned(real.ndim, real.shape)
        return np.clip(np.rint(real / scale) + zero, *self.limits).astype(self.dtype)

    def _aligned(self, rank: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        if self.block and self.axis is not None:
            cut = (*[slice(None)] * self.axis, slice(0, shape[self.axis]))
            scale, zero = (np.repeat(v, self.block, self.axis)[cut] for v in (self.scale, self.zero))
            return scale, zero
        if self.axis is None:
            return self.scale.reshape(()), self.zero.reshape(())
        form = [1] * rank
        form[self.axis] = -1
        return self.scale.reshape(form), self.zero.reshape(form)

    def times(self, factor: float) -> Quant:
        return replace(self, scale=(self.scale * np.float32(factor)).astype(self.scale.dtype))

    def along(self, axis: int | None) -> Quant:
        return replace(self, axis=axis)

    def to_plan(self, why: str) -> TensorPlan | None:
        """As a plan entry of kind "imported"; None if a plan has no words for it."""
        if self.block:
            return None
        return TensorPlan(
            scale=tuple(float(s) for s in self.scale),
            zero_point=tuple(int(z) for z in self.zero),
            dtype=self.dtype,
            axis=self.axis,
            kind="imported",
            why=why,
        )

    def as_weight(self) -> Quant:
        """Unsigned weights as the int8 codes of the same values: both code and zero point less 128."""
        if self.dtype != "uint8" or self.block:
            return self
        return replace(self, zero=self.zero - 128, dtype="int8")
