"""qcompile: a float ONNX model becomes a fast, bit-exact low-precision library.

    import qcompile as qc
    model = qc.import_onnx("model.onnx")
    stats = qc.calibrate(model, "calib.npz")
    plan = qc.plan_uniform(model, stats, "int8", qc.select_target("x86-vnni"))
    artifact = qc.build(model, plan, target="x86-vnni", out="out")
    y = qc.load(artifact.path).run({"x": x})

Names are loaded on first use: importing qcompile, or running a built model, does not load the compiler.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcompile.analyze.analyze import analyze as analyze
    from qcompile.artifact import Artifact as Artifact
    from qcompile.assign.assignment import Assignment as Assignment
    from qcompile.assign.assignment import assign as assign
    from qcompile.assign.assignment import to_plan as to_plan
    from qcompile.assign.imported import plan_imported as plan_imported
    from qcompile.assign.pareto import pareto as pareto
    from qcompile.assign.quantize import Steps as Steps
    from qcompile.assign.quantize import quantize as quantize
    from qcompile.assign.quantize import quantize_formats as quantize_formats
    from qcompile.assign.table import SensitivityTable as SensitivityTable
    from qcompile.assign.uniform import plan_uniform as plan_uniform
    from qcompile.build import build as build
    from qcompile.calibrate import TensorStats as TensorStats
    from qcompile.calibrate import calibrate as calibrate
    from qcompile.calibrate.equalize import equalize as equalize
    from qcompile.errors import QCompileError as QCompileError
    from qcompile.importing import import_onnx as import_onnx
    from qcompile.importing import import_relax as import_relax
    from qcompile.manifest import Manifest as Manifest
    from qcompile.mixed.goal import Drop as Drop
    from qcompile.mixed.goal import Goal as Goal
    from qcompile.mixed.mixed import plan_mixed as plan_mixed
    from qcompile.model import Model as Model
    from qcompile.plan import QuantPlan as QuantPlan
    from qcompile.report.page import write_report as write_report
    from qcompile.runtime import Runner as Runner
    from qcompile.runtime import aligned_empty as aligned_empty
    from qcompile.runtime import load as load
    from qcompile.simulate.simulate import simulate as simulate
    from qcompile.simulate.simulation import Simulation as Simulation
    from qcompile.targets.select import select_target as select_target
    from qcompile.targets.target import Target as Target
    from qcompile.tune.costs import layer_costs as layer_costs
    from qcompile.tune.run import tune as tune
    from qcompile.tune.tasks import tasks_of as tasks_of

__version__ = "0.1.0"

_HOMES = {
    "Artifact": "artifact",
    "Assignment": "assign.assignment",
    "Drop": "mixed.goal",
    "Goal": "mixed.goal",
    "Manifest": "manifest",
    "Model": "model",
    "QCompileError": "errors",
    "QuantPlan": "plan",
    "Runner": "runtime",
    "SensitivityTable": "assign.table",
    "Target": "targets.target",
    "Simulation": "simulate.simulation",
    "Steps": "assign.quantize",
    "TensorStats": "calibrate",
    "aligned_empty": "runtime",
    "analyze": "analyze.analyze",
    "assign": "assign.assignment",
    "build": "build",
    "calibrate": "calibrate",
    "equalize": "calibrate.equalize",
    "import_onnx": "importing",
    "import_relax": "importing",
    "layer_costs": "tune.costs",
    "load": "runtime",
    "pareto": "assign.pareto",
    "plan_imported": "assign.imported",
    "plan_mixed": "mixed.mixed",
    "plan_uniform": "assign.uniform",
    "quantize": "assign.quantize",
    "quantize_formats": "assign.quantize",
    "select_target": "targets.select",
    "simulate": "simulate.simulate",
    "tasks_of": "tune.tasks",
    "to_plan": "assign.assignment",
    "tune": "tune.run",
    "write_report": "report.page",
}
__all__ = [
    "Artifact",
    "Assignment",
    "Drop",
    "Goal",
    "Manifest",
    "Model",
    "QCompileError",
    "QuantPlan",
    "Runner",
    "SensitivityTable",
    "Target",
    "Simulation",
    "Steps",
    "TensorStats",
    "aligned_empty",
    "analyze",
    "assign",
    "build",
    "calibrate",
    "equalize",
    "import_onnx",
    "import_relax",
    "layer_costs",
    "load",
    "pareto",
    "plan_imported",
    "plan_mixed",
    "plan_uniform",
    "quantize",
    "quantize_formats",
    "select_target",
    "simulate",
    "tasks_of",
    "to_plan",
    "tune",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qcompile' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"qcompile.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """``import qcompile.build`` would make the attribute ``build`` the module; here it stays the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
