"""The schedule templates of all operators that have knobs, of CPUs and GPUs, by the operator's name."""

from __future__ import annotations

from typing import Any

from qcompile.targets.cuda import templates as cuda
from qcompile.targets.kernels import cpu_templates as cpu
from qcompile.targets.kernels.template import Template
from qcompile.targets.kernels.workload import Workload

TEMPLATES: dict[str, Template] = {**cpu.TEMPLATES, **cuda.TEMPLATES}


def instructions(workload: Workload, target: Any) -> str:
    """The part of a target that the code of a workload depends on, as a key."""
    return TEMPLATES[workload.operator].instructions(workload, target)
