"""``Model``: a float network, and the ONNX names that every later report speaks in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm.ir import IRModule

    from qcompile.plan import QuantPlan


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, static shape and dtype ("float32", "int64", ...) of a model input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Layer:
    """Where a Relax variable came from: the ONNX node's name (made from its output if it has none), operator type."""

    node: str
    op_type: str


@dataclass(frozen=True, slots=True)
class Model:
    """A float model in Relax.

    ``module`` has one Relax function, ``main``: one dataflow block, one operator a binding, weights as constants,
    static shapes, and a tuple of variables as result. The name of a variable is the ONNX tensor's name, verbatim.
    ``layers`` maps each variable's name to the ONNX node that made it. ``imported_plan`` holds the scales of a
    pre-quantized model. ``source``, ``source_bytes``, ``source_sha256`` say which file it came from. ``notes`` are
    remarks for the user (a dynamic batch fixed to 1).
    """

    module: IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: Mapping[str, Layer]
    source: str = ""
    source_bytes: int = 0
    source_sha256: str = ""
    imported_plan: QuantPlan | None = None
    notes: tuple[str, ...] = field(default=())
