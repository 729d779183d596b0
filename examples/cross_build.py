"""Builds one plan for every target, those that this machine cannot run included, and runs those that it can.

    python examples/cross_build.py [folder for the artifacts]

The arithmetic is fixed by the plan, so libraries of different instruction sets give the same bits.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import qcompile as qc
from qcompile.targets.x86 import ROWS

DIGITS = Path(__file__).parent / "digits"
out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="qcompile-example-"))

model = qc.import_onnx(DIGITS / "model.onnx")
plan = qc.plan_uniform(model, qc.calibrate(model, DIGITS / "calib.npz"), "int8")
images = np.load(DIGITS / "test.npz")["image"][:, None]
first = None
for target in ROWS:
    artifact = qc.build(model, plan, target, out=out / target.name)
    try:
        runner = qc.load(artifact.path)
    except qc.QCompileError as error:
        print(f"{target.name}: built; {error}")
        continue
    scores = np.concatenate([runner.run({"image": image})["scores"] for image in images])
    first = scores if first is None else first
    same = "the same bits" if np.array_equal(scores, first) else "DIFFERENT BITS"
    print(f"{target.name}: {same} for {len(scores)} digits")
