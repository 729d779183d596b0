"""``Manifest``: what ``manifest.json`` says. No times and no absolute paths: equal builds, equal bytes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qcompile.model import TensorSpec
from qcompile.ops import Affine
from qcompile.versioned import FileKind

FORMAT = "qcompile.artifact"
_KIND = FileKind(
    version=4,
    title="the artifact format",
    again="build the model again",
    otherwise="damaged manifest",
    remedy="build the model again",
    format=FORMAT,
)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A model input or output: ONNX name, logical shape, dtype; what its codes mean, None if it holds plain numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Affine | None = None

    @property
    def spec(self) -> TensorSpec:
        """Without the meaning of codes."""
        return TensorSpec(self.name, self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One row of ``qcompile inspect``.

    name, op: ONNX node and operator. format: "int8" or "fp32". kernel: name of the generated function, "" if none was
    needed. inputs, output: logical shapes. macs: multiply-accumulates of one run. scale, zero_point: of the output,
    None for a float one. reason: why the layer stayed float, "" otherwise. schedule: ``ScheduleInfo.source``, "" for a
    kernel without knobs.
    """

    name: str
    op: str
    format: str
    kernel: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    macs: int = 0
    scale: float | None = None
    zero_point: int | None = None
    reason: str = ""
    schedule: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """The schedule of a layer: enough to build its kernel again, whatever a tuning log says by then.

    workload: ``Workload.key``, with the batch beside it. template: version of the kernel's template. knobs: JSON.
    source: "tuned" (fastest of those timed for this workload), "counted" (of those whose instructions were counted),
    "transferred" (from a workload near it) or "default". architecture: of a GPU that it is for, "sm_80"; "" of a CPU.
    """

    layer: str
    workload: str
    batch: int
    template: int
    knobs: str
    source: str
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One step of a run, in order: the kernel's name and the layer that it computes ("" for a copy)."""

    kernel: str
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch on a GPU: blocks, threads and bytes of shared memory of a block, and where its arguments lie.

    arguments: (memory, offset in bytes) each; memory is "input0", "output0", ..., "weights" or "workspace".
    layer: that it computes ("" for a copy).
    """

    kernel: str
    grid: int
    block: int
    shared: int
    arguments: tuple[tuple[str, int], ...]
    layer: str = ""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Size and SHA-256 of a file; the artifact writer fills it in."""

    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that loading and reporting need.

    model, model_sha256, model_bytes: file name (no folder), hash and size of the ONNX source.
    target, triple, features: row name, LLVM triple, what a CPU must have, in the words of /proc/cpuinfo.
    threads: what parallel loops were compiled for. workspace_bytes: scratch memory of one run.
    calls: the kernels in the order of a run; the library's optional ``profile`` entry stamps them.
    launches: of a library of GPU code, by architecture ("sm_80"), in the order of a run; none of one for a CPU.
    ``calls`` are then those of the newest one.
    schedules: of the layers whose kernels have knobs; a build locked to this manifest uses them.
    """

    model: str
    model_sha256: str
    model_bytes: int
    target: str
    triple: str
    features: tuple[str, ...]
    threads: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    workspace_bytes: int
    layers: tuple[LayerInfo, ...] = ()
    calls: tuple[KernelCall, ...] = ()
    launches: Mapping[str, tuple[Launch, ...]] = field(default_factory=dict)
    schedules: tuple[ScheduleInfo, ...] = ()
    notes: tuple[str, ...] = ()
    library: FileInfo = FileInfo()
    weights: FileInfo = FileInfo()
    qcompile: str = ""
    tvm: str = ""

    @property
    def library_file(self) -> str:
        """The name of the artifact's library: a shared library, or GPU code of several architectures."""
        return "model.cubins" if self.launches else "model.so"

    def to_json(self) -> str:
        return json.dumps({**_KIND.head, **dataclasses.asdict(self)}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str, where: str = "manifest.json") -> Manifest:
        """Raises ``QCompileError`` for anything but a manifest of this version."""
        return _KIND.decode(text, where, _decode)


def _decode(data: dict[str, Any]) -> Manifest:
    for key in ("features", "notes"):
        data[key] = tuple(data[key])
    for key in ("inputs", "outputs"):
        data[key] = tuple(_tensor(t) for t in data[key])
    data["layers"] = tuple(_layer(row) for row in data["layers"])
    data["calls"] = tuple(KernelCall(**call) for call in data["calls"])
    data["launches"] = {arch: tuple(map(_launch, rows)) for arch, rows in data["launches"].items()}
    data["schedules"] = tuple(ScheduleInfo(**schedule) for schedule in data["schedules"])
    data["library"], data["weights"] = FileInfo(**data["library"]), FileInfo(**data["weights"])
    return Manifest(**data)


def _tensor(data: Mapping[str, Any]) -> TensorInfo:
    codes = data["quantization"]
    affine = None if codes is None else Affine(**codes)
    return TensorInfo(**{**data, "shape": tuple(data["shape"]), "quantization": affine})


def _launch(data: Mapping[str, Any]) -> Launch:
    return Launch(**{**data, "arguments": tuple((memory, offset) for memory, offset in data["arguments"])})


def _layer(data: Mapping[str, Any]) -> LayerInfo:
    return LayerInfo(**{**data, "inputs": tuple(map(tuple, data["inputs"])), "output": tuple(data["output"])})
