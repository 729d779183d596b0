"""``Model``: a float network, and the ONNX names that every later report speaks in."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from qcompile.errors import QCompileError
from qcompile.plan import QuantPlan

if TYPE_CHECKING:
    from tvm.ir import IRModule

FORMAT, VERSION = "qcompile.model", 1
_REMEDY = "give a file written by Model.save, or import the ONNX model again"


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
    pre-quantized model. ``channel_scales`` were multiplied into its constants (``QuantPlan.channel_scales``).
    ``source``, ``source_bytes``, ``source_sha256`` say which file it came from. ``notes`` are
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
    channel_scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Writes a zip of model.json (names, inputs, outputs, plan) and module.json (Relax, by TVM).

        An older file is replaced; equal models give equal bytes.
        """
        import tvm

        head = {
            "format": FORMAT,
            "version": VERSION,
            "tvm": version("apache-tvm"),
            "inputs": [dataclasses.asdict(spec) for spec in self.inputs],
            "outputs": [dataclasses.asdict(spec) for spec in self.outputs],
            "layers": {name: dataclasses.asdict(layer) for name, layer in self.layers.items()},
            "source": self.source,
            "source_bytes": self.source_bytes,
            "source_sha256": self.source_sha256,
            "imported_plan": self.imported_plan.to_json() if self.imported_plan else None,
            "notes": self.notes,
            "channel_scales": dict(self.channel_scales),
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, text in (
                ("model.json", json.dumps(head, indent=1)),
                ("module.json", tvm.ir.save_json(self.module)),
            ):
                archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)  # ZipInfo's time is fixed: 1980

    @staticmethod
    def load(path: str | Path) -> Model:
        """What ``save`` wrote. Raises ``QCompileError`` for anything else, or a file of another TVM release."""
        import tvm

        try:
            with zipfile.ZipFile(path) as archive:
                head = json.loads(archive.read("model.json"))
                _check(head, path)
                module = tvm.ir.load_json(archive.read("module.json").decode())
            plan = head["imported_plan"]
            return Model(
                module=module,
                inputs=tuple(TensorSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in head["inputs"]),
                outputs=tuple(TensorSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in head["outputs"]),
                layers={name: Layer(**layer) for name, layer in head["layers"].items()},
                source=head["source"],
                source_bytes=head["source_bytes"],
                source_sha256=head["source_sha256"],
                imported_plan=QuantPlan.from_json(plan, str(path)) if plan else None,
                notes=tuple(head["notes"]),
                channel_scales={k: tuple(v) for k, v in head.get("channel_scales", {}).items()},
            )
        except OSError as error:
            raise QCompileError(f"cannot be read ({error.strerror})", node=str(path), remedy=_REMEDY) from None
        except (zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
            reason = f"not a saved model ({type(error).__name__}: {error})"
            raise QCompileError(reason, node=str(path), remedy=_REMEDY) from None


def _check(head: dict, path: str | Path) -> None:
    if head["format"] != FORMAT:
        raise ValueError(f"not of format {FORMAT}")
    if head["version"] != VERSION:
        raise QCompileError(
            f"version {head['version']} of the model format is not known here", node=str(path), remedy=_REMEDY
        )
    if head["tvm"] != version("apache-tvm"):
        raise QCompileError(
            f"written with apache-tvm {head['tvm']}, this is {version('apache-tvm')}",
            node=str(path),
            remedy="import the ONNX model again",
        )
