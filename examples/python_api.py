"""The steps one by one. Each gives a value that can be saved, read, edited and loaded again.

python examples/python_api.py [folder for the files]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import qcompile as qc

HERE = Path(__file__).parent
work = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="qcompile-example-"))
work.mkdir(parents=True, exist_ok=True)

# Import: ONNX becomes a float Relax module. Variables keep the names of the ONNX tensors.
model = qc.import_onnx(HERE / "digits/model.onnx")
model.save(work / "model.zip")
model = qc.Model.load(work / "model.zip")
print("model:   ", *model.inputs, "->", *model.outputs)
print("note:    ", *model.notes)

# Calibrate: statistics of every tensor, over samples that are read once. Any iterable of dicts will do as well.
stats = qc.calibrate(model, HERE / "digits/calib.npz")
stats.save(work / "stats.npz")
stats = qc.TensorStats.load(work / "stats.npz")
print("stats:   ", len(stats.records), "tensors over", stats.samples, "samples")

# Plan: what format each layer computes in, with what scales, and why. Here the classifier is left in float32.
target = qc.select_target("native")
plan = qc.plan_uniform(model, stats, "int8", target, exclude=["classify"])
plan.save(work / "plan.json")
plan = qc.QuantPlan.load(work / "plan.json")
print("plan:    ", ", ".join(f"{name} {layer.format}" for name, layer in plan.layers.items()))

# Build: the plan is carried out, kernels are generated and compiled, and a folder is written.
artifact = qc.build(model, plan, target=target, out=work / "digits")
print("artifact:", ", ".join(f"{file.name} {file.stat().st_size} B" for file in sorted(artifact.path.iterdir())))

# Run: needs the artifact and TVM's runtime; not the compiler, not the ONNX file.
runner = qc.load(artifact.path)
test = np.load(HERE / "digits/test.npz")
found = [runner.run({"image": image[None]})["scores"].argmax() for image in test["image"]]
print("runner:  ", np.sum(found == test["labels"]), "of", len(found), "digits right")

# Without a copy: arrays that are bound once, filled and read in place.
call = runner.bind()
call.inputs["image"][...] = test["image"][0]
call()
print("binding: ", "a", test["labels"][0], "is read as a", call.outputs["scores"].argmax())
