"""The whole compiler as lists of passes, to be read aloud, cut, reordered or extended.

A pass is an ordinary ``tvm.ir.transform.Pass``; so is what a user puts in between (``examples/own_pass.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tvm.ir import IRModule
from tvm.ir.transform import Pass

from qcompile.model import Layer
from qcompile.passes.base import original_errors
from qcompile.passes.float_form import TIDY
from qcompile.passes.integer_form import integer_form
from qcompile.passes.legalize_islands import LegalizeIslands
from qcompile.passes.lower_layers import LowerLayers
from qcompile.passes.schedule_islands import ScheduleIslands
from qcompile.passes.store_activations import StoreActivations
from qcompile.plan import QuantPlan
from qcompile.targets.kernels.template import Schedules, default_schedules
from qcompile.targets.target import Target


def tidy_passes() -> list[Pass]:
    """Float form to float form, one spelling for each meaning. Statistics and plans are made of what comes out."""
    return list(TIDY)


def form_passes(plan: QuantPlan, layers: Mapping[str, Layer] | None = None) -> list[Pass]:
    """Float form to integer form: the plan made visible, then folded into layers that compute on codes.

    layers: ``Model.layers``, so that reports can name ONNX nodes.
    """
    return integer_form(plan, layers)


def lowering_passes(target: Target, schedules: Schedules = default_schedules) -> list[Pass]:
    """Integer form to kernels of one target, with the knobs that ``schedules`` knows."""
    return [
        StoreActivations(target),
        LowerLayers(target, schedules),
        LegalizeIslands(target),
        ScheduleIslands(target),
    ]


def pipeline(plan: QuantPlan, target: Target, layers: Mapping[str, Layer] | None = None) -> list[Pass]:
    """Everything behind ``tidy_passes``, in order."""
    return [*form_passes(plan, layers), *lowering_passes(target)]


def run_passes(module: IRModule, passes: Sequence[Pass], dump: Path | None = None, first: int = 0) -> IRModule:
    """Applies passes in order; with ``dump``, writes the module after each as ``<number>_<pass>.py`` (TVMScript)."""
    for number, each in enumerate(passes, first):
        with original_errors():
            module = each(module)
        if dump is not None:
            dump.mkdir(parents=True, exist_ok=True)
            (dump / f"{number:03d}_{each.info.name}.py").write_text(module.script(show_meta=False))
    return module
