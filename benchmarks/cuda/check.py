"""Runs the cases on this machine's GPU and compares bits; with --bench, times: make test-cuda, make bench-cuda

Needs numpy and NVIDIA's driver, no compiler and no TVM: python3 -m benchmarks.cuda.check out/cuda --bench
Times are the GPU's own, of CUDA graphs; the peak is that of a kernel of mma.sync alone, in the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cuda.timing import Gpu
from qcompile.errors import QCompileError
from qcompile.runtime.cuda import CudaRunner
from qcompile.runtime.driver import LIBRARY, open_driver

CALLS = 200


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("cases", type=Path, nargs="?", default=Path("out/cuda"))
    options.add_argument("--bench", action="store_true", help="times, beside torch's if it is installed")
    options.add_argument("--layers", default="resnet50-32", help="cases whose kernels are timed one by one")
    options.add_argument("--json", type=Path, help="every number, for machines")
    given = options.parse_args()
    try:
        open_driver(LIBRARY)
    except QCompileError as error:
        print(f"skipped: {error}")
        return
    cases = sorted(path.parent for path in given.cases.glob("*/case.json"))
    if not cases:
        sys.exit(f"error: no cases in {given.cases}; make them: make cuda-cases")
    results: dict[str, Any] = {}
    sweeps, peak = sorted(given.cases.glob("sweep/*/sweep.json")) if given.bench else [], 0.0
    if sweeps:
        gpu = Gpu()
        peak = gpu.peak(sweeps[0].parent)
        print(f"{gpu.name}: {peak / 1e12:.0f} TOPS int8 by mma.sync alone")
    if (given.cases / "layers").exists():
        different = Gpu().layers(given.cases / "layers")
        print(f"{'random layers':24} " + (f"WRONG: {different}" if different else "the oracle's bits"), flush=True)
    else:
        different = []
    wrong = ["random layers"] * bool(different) + [
        case.name for case in cases if not _check(case, results, given.bench, peak)
    ]
    for name in given.layers.split(",") if given.bench else ():
        if (given.cases / name).exists():
            _layers(given.cases / name, results, peak)
    for sweep in sweeps:
        results[f"sweep-{sweep.parent.name}"] = gpu.sweep(sweep.parent, peak)
    if given.bench:
        _torch(results)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    if wrong:
        sys.exit(f"error: other results than the oracle's: {', '.join(wrong)}")


def _check(case: Path, results: dict[str, Any], bench: bool, peak: float) -> bool:
    about = json.loads((case / "case.json").read_text())
    runner = CudaRunner(case / "artifact")
    with np.load(case / "inputs.npz") as stored:
        feed = {name: ((stored[name].astype(np.float32) - 128) / 64).astype(np.float32) for name in stored.files}
    got = runner.run(feed)
    again = runner.run(feed)
    with np.load(case / "outputs.npz") as expected:
        equal = all(np.array_equal(got[name], expected[name]) for name in expected.files)
        near = all(np.allclose(got[name], expected[name], rtol=1e-5, atol=1e-6) for name in expected.files)
    repeats = all(np.array_equal(got[name], again[name]) for name in got)
    good = repeats and (equal or (near and not about["exact"]))
    said = "the oracle's bits" if equal else "near the oracle (float operators)" if good else "WRONG"
    line = f"{case.name:24} {said if repeats else 'DIFFERS FROM CALL TO CALL'}"
    if bench:
        runner.microseconds(20)
        times = np.array(runner.microseconds(CALLS))
        macs = sum(layer.macs for layer in runner.manifest.layers)
        rate = 2 * macs / times.min() * 1e6
        share = f", {rate / peak:.1%} of the peak" if peak else ""
        line += f"  min {times.min():.1f} us, median {np.median(times):.1f} us, {rate / 1e12:.1f} TOPS{share}"
        results[case.name] = {"equal": equal, "min_us": times.min(), "median_us": float(np.median(times)), "ops": rate}
    print(line, flush=True)
    return good


def _layers(case: Path, results: dict[str, Any], peak: float) -> None:
    runner = CudaRunner(case / "artifact")
    profile = runner.profile({t.name: np.zeros(t.shape, t.dtype) for t in runner.inputs})
    print(f"\n{case.name}, kernel by kernel:")
    rows = []
    for kernel in sorted(profile.kernels, key=lambda k: -k.microseconds)[:25]:
        rate = 2 * kernel.macs / kernel.microseconds * 1e6
        share = f"{rate / peak:6.1%}" if peak and kernel.macs else ""
        print(f"  {kernel.layer:32} {kernel.kernel:20} {kernel.microseconds:8.1f} us {rate / 1e12:7.1f} TOPS {share}")
        rows.append({"layer": kernel.layer, "kernel": kernel.kernel, "us": kernel.microseconds, "ops": rate})
    results[f"layers-{case.name}"] = rows


def _torch(results: dict[str, Any]) -> None:
    try:
        from benchmarks.cuda.torch_resnet50 import fp16_microseconds
    except ImportError as error:
        print(f"torch is left out: {error}")
        return
    for batch in (1, 32):
        ours = results.get(f"resnet50-{batch}")
        for name, best in fp16_microseconds(batch).items():
            results[f"torch-{name}-{batch}"] = {"min_us": best}
            ratio = f", ours takes {ours['min_us'] / best:.2f}x as long" if ours else ""
            print(f"resnet50 batch {batch}, {name}: min {best:.1f} us{ratio}", flush=True)


if __name__ == "__main__":
    main()
