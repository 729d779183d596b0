"""``QuantPlan``: every decision about precision, in one file that can be read, edited and built again."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from qcompile.formats import format_of
from qcompile.ops import Affine
from qcompile.versioned import FileKind

_KIND = FileKind(
    version=1,
    title="the plan format",
    again="make the plan again",
    otherwise="not a quantization plan",
    remedy="give a plan.json of a build",
)


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """Quantization of one tensor: ``real = scale * (code - zero_point)``, per tensor or per slice along ``axis``.

    Scales are float32 values: others are rounded.

    ``kind``: "own" (from its statistics), "shared" (with the tensor named by ``source``: concat, residual add,
    operators that only move data), "derived" (a bias: scale of input times scale of weight), "fixed" (by the operator:
    softmax), "imported" (from a quantized ONNX model).

    group, group_scale: of int4 weights. ``group`` neighbours along the reduction share an integer in [1, 255], so that
    ``real = scale[channel] * group_scale[channel][i // group] * code``. One byte a group, channel after channel; in
    JSON two hexadecimal digits.

    shift: of a bias, one float32 number for each output channel, which is added to the model's bias before that is
    rounded (bias correction); () for none.

    moves: of a weight, -1, 0 or 1 for each element in order: what is added to its nearest code (learnt rounding). zlib
    over bytes of int8; in JSON base64; b"" for none. ``rounding`` gives them as an array.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    dtype: str
    axis: int | None = None
    kind: str = "own"
    source: str = ""
    why: str = ""
    shift: tuple[float, ...] = ()
    group: int = 0
    group_scale: bytes = b""
    moves: bytes = b""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(float(np.float32(s)) for s in self.scale))
        object.__setattr__(self, "shift", tuple(float(np.float32(s)) for s in self.shift))

    def rounding(self, shape: tuple[int, ...]) -> np.ndarray | None:
        """``moves`` as int8 of a weight's shape, None if there are none. ValueError if they are not of this shape."""
        if not self.moves:
            return None
        try:
            moves = np.frombuffer(zlib.decompress(self.moves), np.int8)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if np.abs(moves).max(initial=0) > 1:
            raise ValueError("some are not -1, 0 or 1")
        return moves.reshape(shape)

    @property
    def affine(self) -> Affine:
        """The per-tensor form; an error for a per-channel tensor."""
        if self.axis is not None or len(self.scale) != 1:
            raise ValueError("a per-channel tensor has no single scale")
        return Affine(self.scale[0], self.zero_point[0], self.dtype)


def pack_moves(moves: np.ndarray) -> bytes:
    """What ``TensorPlan.moves`` holds, of an array of -1, 0 and 1."""
    packer = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)  # nothing repeats; a search for it would take long
    return packer.compress(np.ascontiguousarray(moves, np.int8).tobytes()) + packer.flush()


def _encode(tensor: TensorPlan) -> dict[str, Any]:
    """Equal zero points are written once, shifts and groups only where there are some."""
    zero_point = tensor.zero_point[:1] if len(set(tensor.zero_point)) == 1 else tensor.zero_point
    row = {**dataclasses.asdict(tensor), "scale": _numbers(tensor.scale), "zero_point": zero_point}
    shift, moves = _numbers(row.pop("shift")), row.pop("moves")
    if shift:
        row["shift"] = shift
    if moves:
        row["moves"] = base64.b64encode(moves).decode()
    groups = {"group": row.pop("group"), "group_scale": row.pop("group_scale").hex()}
    return {**row, **groups} if tensor.group else row


def _numbers(values: tuple[float, ...]) -> list[float]:
    return [float(str(np.float32(value))) for value in values]


def _tensor(data: Mapping[str, Any]) -> TensorPlan:
    scale, zero_point = tuple(map(float, data["scale"])), tuple(map(int, data["zero_point"]))
    if len(zero_point) == 1:
        zero_point *= len(scale)
    group_scale, shift = bytes.fromhex(data.get("group_scale", "")), tuple(map(float, data.get("shift", ())))
    moves = base64.b64decode(data.get("moves", ""), validate=True)
    lists = {"scale": scale, "zero_point": zero_point, "group_scale": group_scale, "shift": shift, "moves": moves}
    return TensorPlan(**{**data, **lists})


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """Format of one layer (a name in ``qcompile.formats``) and why."""

    format: str
    why: str = ""

    @property
    def codes(self) -> bool:
        """Whether the layer reads codes. Raises QCompileError for a format that there is not."""
        return format_of(self.format).codes


@dataclass(frozen=True, slots=True)
class QuantPlan:
    """Decisions for a whole model.

    tensors: tensor name -> TensorPlan: activations under the ONNX tensor's (Relax variable's) name, the constant weight
    and bias of a layer under "<layer output>.weight" and "<layer output>.bias".
    layers: name of a layer's output tensor -> LayerPlan.
    integer_inputs, integer_outputs: model inputs and outputs that stay in codes instead of float32.
    channel_scales: what the channels of tensors are multiplied by before anything else, by the name of their group (see
    ``qcompile.passes.equalize_channels``); the float meaning of the model stays.
    """

    tensors: Mapping[str, TensorPlan] = field(default_factory=dict)
    layers: Mapping[str, LayerPlan] = field(default_factory=dict)
    integer_inputs: tuple[str, ...] = ()
    integer_outputs: tuple[str, ...] = ()
    method: str = ""
    channel_scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scales = {k: tuple(float(np.float32(s)) for s in numbers) for k, numbers in self.channel_scales.items()}
        object.__setattr__(self, "channel_scales", MappingProxyType(scales))
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))

    def to_json(self) -> str:
        """One line a layer and a tensor; scales with as many digits as a float32 has."""
        head = {
            **_KIND.head,
            "method": self.method,
            "integer_inputs": self.integer_inputs,
            "integer_outputs": self.integer_outputs,
        }
        parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        layers = {name: dataclasses.asdict(layer) for name, layer in self.layers.items()}
        tensors = {name: _encode(tensor) for name, tensor in self.tensors.items()}
        scales = {name: _numbers(numbers) for name, numbers in self.channel_scales.items()}
        tables: list[tuple[str, Mapping[str, Any]]] = [("channel_scales", scales)] if scales else []
        for key, table in (*tables, ("layers", layers), ("tensors", tensors)):
            rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
            parts.append(f"{json.dumps(key)}: {{\n{rows}\n }}")
        return "{\n " + ",\n ".join(parts) + "\n}\n"

    @staticmethod
    def from_json(text: str, where: str = "plan") -> QuantPlan:
        return _KIND.decode(text, where, _decode)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.to_json())

    @staticmethod
    def load(path: str | Path) -> QuantPlan:
        return _KIND.read(path, _decode)


def _decode(data: Mapping[str, Any]) -> QuantPlan:
    return QuantPlan(
        tensors={name: _tensor(t) for name, t in data["tensors"].items()},
        layers={name: LayerPlan(**layer) for name, layer in data["layers"].items()},
        integer_inputs=tuple(data["integer_inputs"]),
        integer_outputs=tuple(data["integer_outputs"]),
        method=data["method"],
        channel_scales={k: tuple(map(float, v)) for k, v in data.get("channel_scales", {}).items()},
    )
