"""Workloads and records of them, as a session of tuning would leave them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from qcompile.ops import Affine, Conv2d, Dense, Epilogue
from qcompile.targets.kernels.template import knobs_json
from qcompile.targets.kernels.templates import TEMPLATES, instructions
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.storage import BLOCK, Storage
from qcompile.targets.target import Target
from qcompile.tune.log import TuningLog
from qcompile.tune.record import Record

CODES = Affine(0.1, 3)


def convolution(
    inputs=64,
    outputs=64,
    height=14,
    width=14,
    window=3,
    stride=1,
    depthwise=False,
    integer=True,
    residual=False,
    batch=1,
) -> Workload:
    pad, dtype = window // 2, "uint8" if integer else "float32"
    x = Storage((batch, inputs, height * stride, width * stride), dtype, BLOCK, (pad,) * 4)
    out = Storage((batch, outputs, height, width), dtype, BLOCK)
    codes = CODES if integer else None
    epilogue = Epilogue(codes, (0.0, float("inf")), codes if residual else None, residual and not integer)
    spec = Conv2d((stride, stride), (pad,) * 4, (1, 1), inputs if depthwise else 1, codes, epilogue)
    weight = (outputs, 1 if depthwise else inputs, window, window)
    return Workload.of(
        "depthwise_conv2d" if depthwise else "conv2d", spec, weight, x, out, out if residual else None, 1
    )


def matrix(rows=64, inputs=64, outputs=64, batch=1, integer=True) -> Workload:
    dtype = "uint8" if integer else "float32"
    spec = Dense(CODES if integer else None, Epilogue(CODES if integer else None))
    x, out = Storage((batch, rows, inputs), dtype), Storage((batch, rows, outputs), dtype)
    return Workload.of("dense", spec, (outputs, inputs), x, out, None, 1)


def record(workload: Workload, target: Target, knobs: Any, us: float = 10.0, **changes: Any) -> Record:
    """knobs: of the template, or JSON."""
    template = TEMPLATES[workload.operator]
    result = Record(
        workload=workload.key,
        batch=workload.batch,
        instructions=instructions(workload, target),
        template=template.version,
        knobs=knobs if isinstance(knobs, str) else knobs_json(knobs),
        costs=(us * 1e-6,),
        error="",
        device="some CPU",
        cores=2,
        created="2026-01-31T12:00:00Z",
        tools=(("tvm", "0.27.0"),),
        footprint=1 << 20,
    )
    return dataclasses.replace(result, **changes)


def write(path: Path, *records: Record) -> Path:
    with TuningLog.open(path) as log:
        log.update(records)
    return path
