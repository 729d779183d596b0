"""Instructions that int8 models execute on ARM, counted under an emulator: python -m benchmarks.arm --help

Instructions are no cycles, but they do not depend on the machine that counts them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from rich.console import Console

import qcompile as qc
from benchmarks.arm import mca
from benchmarks.arm.layers import core_of, layer_counts, layers_table
from benchmarks.arm.loops import multiplies
from benchmarks.arm.peer import onnxruntime_count
from benchmarks.models import find
from benchmarks.run import BENCH
from qcompile.report.tables import table
from qcompile.runtime.emulate import Emulator

SAMPLES = 8  # of calibration
NUMBERS = ("instructions", "products", "of all", "MACs each", "onnxruntime", "ratio")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.arm", description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="ic_resnet8,kws_dscnn,vww_mnv1", help="names, separated by commas")
    parser.add_argument("--targets", default="arm-dotprod", help="rows, separated by commas")
    parser.add_argument("--mnemonics", type=int, default=0, help="also print the most frequent ones")
    parser.add_argument("--onnxruntime", type=Path, help="an arm64 root (benchmarks/arm/root.sh): its int8 is counted")
    parser.add_argument("--layers", action="store_true", help="also each kernel, with the cycles of its inner loop")
    parser.add_argument("--tuning-records", default="default", help="logs of schedules, as of qcompile build")
    options = parser.parse_args()
    models, notes = find(options.models.split(","), Path(os.environ.get("QCOMPILE_BENCH") or BENCH))
    for note in notes:
        print(f"note: {note}")
    if options.layers and mca.missing():
        print(f"note: {mca.missing()}; cycles are left out")
    rows, console = [], Console(width=160)
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            imported, peer = qc.import_onnx(model.onnx), 0.0
            plan = qc.plan_uniform(imported, qc.calibrate(imported, model.calibration[:SAMPLES]), "int8")
            for name in options.targets.split(","):
                out = Path(folder) / f"{model.name}-{name}"
                artifact = qc.build(imported, plan, name, out=out, tuning_records=options.tuning_records)
                emulator = Emulator(artifact.path)
                counts = emulator.count(model.feed)
                total, macs = sum(counts.values()), sum(layer.macs for layer in artifact.manifest.layers)
                if options.onnxruntime and not peer:
                    peer = onnxruntime_count(model, SAMPLES, macs, options.onnxruntime)
                products = sum(counts.get(word, 0) for word in multiplies(counts))
                rows.append([model.name, name, f"{total:,}", f"{products:,}", f"{products / total:.0%}"])
                rows[-1].append(f"{macs / total:.2f}")
                rows[-1] += [f"{peer:,.0f}", f"{total / peer:.2f}"] if peer else ["", ""]
                if options.mnemonics:
                    often = sorted(counts.items(), key=lambda item: -item[1])[: options.mnemonics]
                    print(model.name, name, *(f"{word} {number:,}" for word, number in often))
                if options.layers:
                    core = core_of(qc.select_target(name))
                    kernels = layer_counts(artifact.manifest, emulator.trace(model.feed), "" if mca.missing() else core)
                    console.print(layers_table(kernels, f"{model.name}, {name}; cycles of {core}"))
    console.print(table(["model", "target", *NUMBERS], rows, right=NUMBERS))


if __name__ == "__main__":
    main()
