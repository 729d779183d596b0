"""Artifacts and peers' models for the measurements, each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qcompile as qc
from benchmarks.models import BenchModel
from qcompile.bench import Contender
from qcompile.bench.peers import int8_model


class Builds:
    """Makes what a section asks for; ``tell`` gets a line on what takes time. tuning_records: as for ``qc.build``."""

    def __init__(self, folder: Path, tell: Callable[[str], None], tuning_records: str = "default"):
        self.folder, self.tell, self.tuning_records = folder, tell, tuning_records
        self._imported: dict[str, qc.Model] = {}
        self._artifacts: dict[tuple[str, str, int], qc.Artifact] = {}

    def artifact(self, model: BenchModel, precision: str, threads: int = 1) -> qc.Artifact:
        key = (model.name, precision, threads)
        if key not in self._artifacts:
            if model.name not in self._imported:
                self.tell(f"{model.name}: importing")
                self._imported[model.name] = qc.import_onnx(model.onnx)
            self.tell(f"{model.name}: building {precision} for {threads} thread(s)")
            imported = self._imported[model.name]
            plan = qc.quantize(imported, model.calibration, precision) if precision != "fp32" else None
            out = self.folder / f"{model.name}-{precision}-{threads}"
            records = self.tuning_records
            self._artifacts[key] = qc.build(imported, plan, out=out, threads=threads, tuning_records=records)
        return self._artifacts[key]

    def onnxruntime_int8(self, model: BenchModel, activations: str) -> Path:
        self.tell(f"{model.name}: ONNX Runtime's quantization, {activations}")
        return int8_model("onnxruntime", model.onnx, model.calibration, activations, model.peer_operators)

    def openvino_int8(self, model: BenchModel) -> Path:
        self.tell(f"{model.name}: OpenVINO's quantization (NNCF)")
        return int8_model("openvino", model.onnx, model.calibration)

    def contenders(self, model: BenchModel, threads: int) -> dict[str, list[Contender]]:
        """By column of the table; where there are two, the faster counts."""
        paths = {
            "qcompile int8": [self.artifact(model, "int8", threads).path],
            "qcompile fp32": [self.artifact(model, "fp32", threads).path],
            "onnxruntime int8": [self.onnxruntime_int8(model, kind) for kind in ("uint8", "int8")],
            "onnxruntime fp32": [model.onnx],
            "openvino int8": [self.openvino_int8(model)],
            "openvino fp32": [model.onnx],
        }
        return {
            column: [Contender(*column.split(), path=path, threads=threads, feed=model.feed) for path in found]
            for column, found in paths.items()
        }
