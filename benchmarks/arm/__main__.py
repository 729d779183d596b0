"""Instructions that int8 models execute on ARM, counted under QEMU, beside ONNX Runtime's: make bench-arm

Instructions are no cycles, but they do not depend on the machine that counts them. Cycles of inner loops (--layers) are
those of LLVM's model of a core.

make bench-arm ARGS="--models ic_resnet8,resnet50 --targets neoverse-n1,arm-i8mm --layers --json arm.json"
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

import qcompile as qc
from benchmarks.arm import mca
from benchmarks.arm.cpus import CPUS
from benchmarks.arm.layers import core_of, layer_counts, layers_table
from benchmarks.arm.loops import multiplies
from benchmarks.arm.peer import best_count
from benchmarks.arm.results import Results
from benchmarks.arm.root import ROOT
from benchmarks.models import BenchModel, bench_folder, find
from qcompile.errors import QCompileError
from qcompile.report.tables import table
from qcompile.runtime.emulate import Emulator, launcher
from qcompile.targets.target import Target

SMALL = "ic_resnet8,kws_dscnn,vww_mnv1"  # two minutes in all
ALL = f"{SMALL},imagenet_mnv1_025,imagenet_mnv2,resnet50"  # ten minutes
SAMPLES = 8  # of calibration
NUMBERS = ("MACs each", "instructions", "dot products", "onnxruntime", "its dot products", "ratio")


def main() -> None:
    try:
        _run(_options())
    except QCompileError as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:  # to read a model's data
        sys.exit(f"error: {error}; the extra has it: pip install 'qcompile[peers]'")


def _run(options: argparse.Namespace) -> None:
    models, notes = find((ALL if options.models == "all" else options.models).split(","), bench_folder())
    if options.layers and mca.missing():
        notes.append(f"{mca.missing()}; cycles are left out")
    if options.onnxruntime and not options.onnxruntime.exists():
        notes.append(f"ONNX Runtime is left out: no {options.onnxruntime} ('make arm-root' makes it)")
        options.onnxruntime = None
    out, results = Console(width=200), Results(options.json)
    for note in notes:
        out.print(f"note: {note}", highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            for target in map(qc.select_target, options.targets.split(",")):
                results.add(_measure(model, target, options, results, Path(folder), out))
    beside = "; ONNX Runtime: the better of S8S8 and U8S8" if options.onnxruntime else ""
    title = f"one call, tuning records: {options.tuning_records}{beside}"
    out.print(table(["model", "target", *NUMBERS], map(_row, results.rows), right=NUMBERS, title=title))


def _options() -> argparse.Namespace:
    head, *rest = __doc__.splitlines()
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("benchmarks.arm", description=head, epilog="\n".join(rest), formatter_class=shown)
    parser.add_argument("--models", default=SMALL, help=f"names, separated by commas, or all: {ALL}")
    parser.add_argument("--targets", default="arm-dotprod,arm-i8mm", help="rows, separated by commas")
    parser.add_argument("--tuning-records", default="default", help="logs of schedules, as of qcompile build")
    parser.add_argument("--layers", action="store_true", help="also each kernel, with the cycles of its inner loop")
    parser.add_argument("--mnemonics", type=int, default=0, help="also so many instructions, the most frequent first")
    help_root = "an arm64 root that ONNX Runtime's wheel is in; default: what 'make arm-root' makes; '' for none"
    parser.add_argument("--onnxruntime", type=_path, default=ROOT, help=help_root)
    parser.add_argument(
        "--json", type=Path, help="file for the figures; ONNX Runtime's are taken from it the next time"
    )
    return parser.parse_args()


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _measure(
    model: BenchModel, target: Target, options: argparse.Namespace, results: Results, folder: Path, out: Console
) -> dict[str, Any]:
    imported = qc.import_onnx(model.onnx)
    plan = qc.plan_uniform(imported, qc.calibrate(imported, model.calibration[:SAMPLES]), "int8", target)
    place = folder / f"{model.name}-{target.name}"
    artifact = qc.build(imported, plan, target, out=place, tuning_records=options.tuning_records)
    emulator = Emulator(artifact.path)
    counts = emulator.count(model.feed)
    work = multiplies(counts)
    row: dict[str, Any] = {
        "model": model.name,
        "target": target.name,
        "tuning_records": options.tuning_records,
        "macs": sum(layer.macs for layer in artifact.manifest.layers),
        "instructions": sum(counts.values()),
        "products": {word: number for word, number in sorted(counts.items()) if word in work},
    }
    if options.mnemonics:
        often = sorted(counts.items(), key=lambda item: -item[1])[: options.mnemonics]
        out.print(model.name, target.name, *(f"{word} {number:,}" for word, number in often), highlight=False)
    if options.layers:
        core = core_of(target)
        kernels = layer_counts(artifact.manifest, emulator.trace(model.feed), "" if mca.missing() else core)
        out.print(layers_table(kernels, f"{model.name}, {target.name}{mca.model_of(core)}"))
        row |= {"core": core, "layers": [dataclasses.asdict(kernel) for kernel in kernels]}
    if options.onnxruntime:
        cpu = CPUS[launcher(target.triple, target.features)[-1]]
        peer = best_count(model, SAMPLES, cpu, options.onnxruntime, results.keep)
        row["onnxruntime"] = dataclasses.asdict(peer)
    return row


def _row(row: dict[str, Any]) -> list[str]:
    ours = [row["model"], row["target"], f"{row['macs'] / row['instructions']:.2f}", f"{row['instructions']:,}"]
    ours.append(_products(row["products"]))
    if (peer := row.get("onnxruntime")) is None:
        return [*ours, "", "", ""]
    kind = {"int8": "S8S8", "uint8": "U8S8"}[peer["activations"]]
    ratio = f"{row['instructions'] / peer['instructions']:.2f}"
    return [*ours, f"{kind} {peer['instructions']:,}", _products(peer["products"]), ratio]


def _products(counts: dict[str, int]) -> str:
    return "\n".join(f"{number:,} {word}" for word, number in counts.items())


if __name__ == "__main__":
    main()
