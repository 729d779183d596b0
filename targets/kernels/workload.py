"""``Workload``: a layer without its numbers, all that the speed of its kernel depends on beside target and schedule.

Two layers with equal workloads run the same code on different constants: what was measured for one holds for the
other, in whatever model, under whatever name. Scales, zero points and clipping bounds of codes are constants, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from qcompile.formats import ITEM_BYTES, format_with, is_format
from qcompile.ops import Affine, Conv2d, Dense, Epilogue
from qcompile.targets.storage import Storage


@dataclass(frozen=True, slots=True)
class Workload:
    """One layer with weights.

    operator: "conv2d", "depthwise_conv2d", "conv2d_int4", "dense" or "dense_int4": the name of its schedule template;
    of GPUs, "conv2d_cuda" and its like.
    spec: with scales of 1 and zero points of 0. weight: (O, I / groups, KH, KW) or (N, K).
    x, out, residual: images of a convolution as (N, C, H, W), also of a sequence; matrices of ``dense`` as
    (batch, rows, K or N). threads: what the kernel is compiled for.
    """

    operator: str
    spec: Conv2d | Dense
    weight: tuple[int, ...]
    x: Storage
    out: Storage
    residual: Storage | None
    threads: int

    @staticmethod
    def of(
        operator: str,
        spec: Conv2d | Dense,
        weight: tuple[int, ...],
        x: Storage,
        out: Storage,
        residual: Storage | None,
        threads: int,
    ) -> Workload:
        """The workload of a layer as ``kernels.conv`` and ``kernels.depthwise`` take it."""
        if isinstance(spec, Conv2d) and len(weight) == 3:
            weight = (*weight[:2], 1, weight[2])
        shaped = [s and _canonical(s, spec) for s in (x, out, residual)]
        return Workload(operator, _unscaled(spec), weight, shaped[0], shaped[1], shaped[2], threads)

    @property
    def integer(self) -> bool:
        return self.spec.x is not None

    @property
    def batch(self) -> int:
        return self.x.shape[0]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call."""
        return prod(self.out.shape) * prod(self.weight[1:])

    @property
    def group(self) -> int:
        """How many int4 weights share an integer scale; 0 for other weights."""
        return self.spec.group

    @property
    def format(self) -> str:
        """Its name among ``qcompile.formats``; of what is rounded by a kernel before, the type of its weights."""
        activations, weights = self.spec.activations, self.spec.weights
        return format_with(activations, weights).name if is_format(activations, weights) else weights

    @property
    def weight_bytes(self) -> int:
        weights = prod(self.weight)
        return int(weights * ITEM_BYTES[self.spec.weights]) + (weights // self.group if self.group else 0)

    @property
    def summary(self) -> str:
        """ "3x3/2 64 -> 128, 28x28" or "1x128 @ 128x64", for tables."""
        if isinstance(self.spec, Dense):
            rows, inputs = self.x.shape[1:]
            return f"{self.batch * rows}x{inputs} @ {inputs}x{self.weight[0]}"
        _, channels, _, _ = self.x.shape
        _, outputs, height, width = self.out.shape
        window, strides = "x".join(map(str, self.weight[2:])), self.spec.strides
        stride = "" if strides == (1, 1) else f"/{strides[0] if strides[0] == strides[1] else strides}"
        batch = f"{self.batch} x " if self.batch > 1 else ""
        return f"{window}{stride} {channels} -> {outputs}, {batch}{height}x{width}"

    @property
    def key(self) -> str:
        """Canonical JSON, without the batch: schedules of one batch serve any other."""
        spec, layer = self.spec, {}
        if isinstance(spec, Conv2d):
            layer = {f: getattr(spec, f) for f in ("strides", "padding", "dilation", "groups")}
        if self.group:
            layer["group"] = self.group
        if spec.weights != _usual_weights(self.x, self.group):
            layer["weights"] = spec.weights
        epilogue = spec.epilogue
        if epilogue.out is None and epilogue.clip is not None:
            layer["clip"] = [repr(bound) for bound in epilogue.clip]  # infinities are not JSON
        operands = {"x": self.x, "out": self.out} | ({"residual": self.residual} if self.residual else {})
        described = {name: _storage(storage) for name, storage in operands.items()}
        fields = {"operator": self.operator, "weight": self.weight, **described, **layer, "threads": self.threads}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_key(key: str, batch: int) -> Workload:
        """The inverse of ``key``. Raises ValueError, KeyError or TypeError for anything else."""
        fields = json.loads(key)
        x, out = (_restored(fields[name], batch) for name in ("x", "out"))
        residual = _restored(fields["residual"], batch) if "residual" in fields else None
        codes, clip = _codes(out), fields.get("clip")
        float_residual = residual is not None and residual.is_float
        epilogue = Epilogue(
            out=codes,
            clip=tuple(map(float, clip)) if clip else None,  # type: ignore[arg-type]
            residual=None if residual is None or float_residual else _codes(residual),
            residual_is_float=float_residual,
        )
        group = fields.get("group", 0)
        weights = fields.get("weights", _usual_weights(x, group))
        reads = x.dtype if x.is_float else ""
        spec: Conv2d | Dense
        if "strides" not in fields:
            spec = Dense(_codes(x), epilogue, group, weights, reads)
        else:
            strides, padding, dilation = (tuple(fields[f]) for f in ("strides", "padding", "dilation"))
            numbers = (strides, padding, dilation, fields["groups"])
            spec = Conv2d(*numbers, _codes(x), epilogue, weights, group, reads)  # type: ignore[arg-type]
        return Workload(fields["operator"], spec, tuple(fields["weight"]), x, out, residual, fields["threads"])


def _codes(storage: Storage) -> Affine | None:
    return None if storage.is_float else Affine(1.0, 0, storage.dtype)


def _usual_weights(x: Storage, group: int) -> str:
    """What weights are stored in unless a key says something else."""
    return x.dtype if x.is_float else "int4" if group else "int8"


def _unscaled(spec: Conv2d | Dense) -> Conv2d | Dense:
    def plain(affine: Affine | None) -> Affine | None:
        return affine and Affine(1.0, 0, affine.dtype)

    old = spec.epilogue
    epilogue = Epilogue(plain(old.out), None if old.out else old.clip, plain(old.residual), old.residual_is_float)
    return replace(spec, x=plain(spec.x), epilogue=epilogue)


def _canonical(storage: Storage, spec: Conv2d | Dense) -> Storage:
    if isinstance(spec, Conv2d):
        return replace(storage, shape=storage.image, fill=0)
    *leading, last = storage.shape
    batch = leading[0] if leading else 1
    return replace(storage, shape=(batch, prod(leading[1:]), last))


def _storage(storage: Storage) -> list[Any]:
    """dtype, shape without the batch, and the layout if it is not plain."""
    layout = [storage.block, list(storage.border)] if storage.blocked else []
    return [storage.dtype, list(storage.shape[1:]), *layout]


def _restored(described: list[Any], batch: int) -> Storage:
    dtype, shape, *layout = described
    block, border = layout or (0, (0, 0, 0, 0))
    return Storage((batch, *shape), dtype, block, tuple(border))


def fields_of(key: str) -> Mapping[str, Any]:
    """The parts of a key, for reports and for the distance between two shapes."""
    return json.loads(key)
