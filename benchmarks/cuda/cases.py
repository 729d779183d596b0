"""Makes what a machine with a GPU is to run: make cuda-cases

For each model and batch size a folder: an artifact, inputs, and the outputs that a CPU library of the same plan gives,
which are the oracle's bits. And ``sweep``: every distinct product of ResNet-50 with every tile. The folder is all that
the other machine needs, beside this repository and numpy: ``python3 -m benchmarks.cuda.check out/cuda``.

make cuda-cases ARGS="--models ic_resnet8,resnet50 --batches 1,32 --target cuda:sm_90"
make cuda-cases ARGS="--models ic_resnet8 --precisions int8,w4a8,half,bf16,fp8_e4m3 --target cuda:sm_90"
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console

import qcompile as qc
from benchmarks.cuda.sweep import write_sweep
from benchmarks.models import BenchModel, bench_folder, find
from qcompile.artifact import WEIGHTS
from qcompile.model import Model
from qcompile.runtime.driver import has_gpu
from qcompile.targets.cuda.rows import ROWS
from qcompile.tune.gpu import HERE, gpu_at, row_for

MODELS = "digits,ic_resnet8,kws_dscnn,vww_mnv1,sww_dscnn1d,ad_fc_ae,imagenet_mnv1_025,imagenet_mnv2,det_fastestdet,"
MODELS += "lm_tinygpt,nlp_minilm_l6,rnn_charrnn,"
LARGE = ("resnet50", "mobilenetv2")
SAMPLES = 8  # of calibration
EXACT = ("int8", "w4a8")  # formats whose sums are of integers
# How far results of other formats may be from the oracle's, in relation to the largest: sums in another order round to
# the other neighbour where the next layer reads them, and so on through a network.
TOLERANCE = {"fp32": 1e-4, "half": 5e-3, "bf16": 2e-2, "fp8_e4m3": 5e-2, "fp8_e5m2": 0.1}


FLOATS = ("nn.layer_norm", "lstm", "gru", "rnn")  # between layers on codes: there, a code may be its neighbour
BETWEEN = 2e-2


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("-o", "--out", type=Path, default=Path("out/cuda"))
    options.add_argument("--models", default=MODELS + ",".join(LARGE))
    options.add_argument("--batches", default="1,32", help="of the larger models; the others are run one by one")
    options.add_argument("--precisions", default="int8", help="formats of whole models")
    options.add_argument("--target", default="cuda")
    options.add_argument("--arch", help="of single layers and the sweep; default: this machine's GPU's, else sm_90")
    options.add_argument("--no-sweep", action="store_true")
    options.add_argument("--for-gpu", action="store_true", help="make nothing where there is no GPU")
    given = options.parse_args()
    if given.for_gpu and not has_gpu():
        return
    console = Console(width=160)
    models, notes = find([name for name in given.models.split(",") if name], bench_folder())
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    arch = given.arch or (row_for(ROWS[0], gpu_at(HERE)).architecture if has_gpu() else "sm_90")
    failed = []
    if find_spec("hypothesis"):
        from benchmarks.cuda.layers import write_layers

        console.print(f"{given.out / 'layers'}: {write_layers(given.out / 'layers', arch)}", highlight=False)
    for model in models:
        batches = [int(b) for b in given.batches.split(",")] if model.name in LARGE else [1]
        sweep = None if given.no_sweep else given.out / "sweep"
        for precision in given.precisions.split(","):
            try:
                for name in _write(model, batches, given.target, given.out, sweep, arch, precision):
                    console.print(f"{given.out / name}", highlight=False)
            except Exception as error:  # the others are worth having
                failed.append(f"{model.name} in {precision}")
                console.print(f"{given.out / model.name} FAILED: {type(error).__name__}: {error}", highlight=False)
    sizes = {about.st_ino: about.st_size for about in (path.stat() for path in given.out.rglob("*") if path.is_file())}
    console.print(f"{sum(sizes.values()) / (1 << 20):.0f} MiB in all (fewer with --models)", highlight=False)
    if failed:
        sys.exit(f"error: no cases of {', '.join(failed)}")


def _write(
    model: BenchModel,
    batches: Sequence[int],
    target: str,
    out: Path,
    sweep: Path | None,
    arch: str = "sm_90",
    precision: str = "int8",
) -> list[str]:
    network = without_softmax(onnx.load(model.onnx))
    single = qc.import_onnx(network)
    plan = qc.plan_uniform(single, qc.calibrate(single, model.calibration[:SAMPLES]), precision)
    reference = qc.load(qc.build(single, plan).path)
    names = []
    for batch in batches:
        imported = single if batch == 1 else qc.import_onnx(with_batch(network, batch))
        name = f"{model.name}-{batch}" + f"-{precision}" * (precision != "int8")
        artifact = qc.build(imported, plan, target, out=out / name / "artifact")
        if names:
            share(out / names[0] / "artifact" / WEIGHTS, artifact.path / WEIGHTS)
        codes = _codes(single, model.calibration[0], batch)
        rows = [reference.run({k: v[i : i + 1] for k, v in inputs_of(codes).items()}) for i in range(batch)]
        results = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
        np.savez_compressed(out / name / "inputs.npz", **codes)
        np.savez_compressed(out / name / "outputs.npz", **results)
        exact = all(layer.format in EXACT for layer in artifact.manifest.layers)
        between = BETWEEN if any(layer.op in FLOATS for layer in artifact.manifest.layers) else 1e-5
        about = {"model": model.name, "batch": batch, "exact": exact, "tolerance": TOLERANCE.get(precision, between)}
        (out / name / "case.json").write_text(json.dumps(about) + "\n")
        names.append(name)
        if sweep is not None and (model.name, precision) == ("resnet50", "int8"):
            write_sweep(imported, plan, sweep / f"{batch}", arch)
    return names


def share(file: Path, equal: Path) -> None:
    """Makes two files of the same bytes one, which an archive then holds once."""
    if filecmp.cmp(file, equal, shallow=False):
        equal.unlink()
        os.link(file, equal)


def without_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network without a Softmax at its end, which hides what is before it, and whose bits are no one's."""
    last = model.graph.node[-1]
    if last.op_type == "Softmax" and len(model.graph.output) == 1:
        model.graph.output[0].name = last.input[0]
        model.graph.node.remove(last)
    return model


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The same network for so many samples, where inputs and constant shapes of Reshape begin with 1."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    constants = {i.name for i in model.graph.initializer}
    for i in model.graph.initializer:
        if i.name in shapes:
            shape = numpy_helper.to_array(i).copy()
            shape[0] = batch if shape[0] == 1 else shape[0]
            i.CopyFrom(numpy_helper.from_array(shape, i.name))
    for tensor in (*model.graph.input, *model.graph.output):
        if tensor.name not in constants and tensor.type.tensor_type.shape.dim:
            tensor.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    return model


def _codes(model: Model, sample: dict[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
    """Inputs in few bytes; ``inputs_of`` makes floats of them, the same ones everywhere. Integers are the sample's."""
    rng = np.random.default_rng(0)
    floats = {t.name: (batch, *t.shape[1:]) for t in model.inputs if t.dtype == "float32"}
    codes = {name: rng.integers(0, 256, shape).astype(np.uint8) for name, shape in floats.items()}
    return codes | {t.name: np.repeat(sample[t.name], batch, 0) for t in model.inputs if t.name not in floats}


def inputs_of(codes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is in bytes becomes floats."""
    return {
        name: ((array.astype(np.float32) - 128) / 64).astype(np.float32) if array.dtype == np.uint8 else array
        for name, array in codes.items()
    }


if __name__ == "__main__":
    main()
