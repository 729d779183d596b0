"""Runs the cases on this machine's GPU and compares bits; with --bench, times: make test-cuda, make bench-cuda

Needs numpy and NVIDIA's driver, no compiler and no TVM: python3 -m benchmarks.cuda.check out/cuda --bench
Times are the GPU's own, of CUDA graphs; the peak is that of a kernel of mma.sync alone, in the same run. Each part runs
in a process of its own: one that fails is named, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cuda.timing import Gpu, arch_of
from qcompile.errors import QCompileError
from qcompile.runtime import driver as drivers
from qcompile.runtime.cuda import CudaRunner

CALLS, SECONDS = 200, 1800  # of a model; for one part
_SAID = 4000  # characters of what a failed part said
PEERS = ("torch", "onnxruntime", "tensorrt")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("cases", type=Path, nargs="?", default=Path("out/cuda"))
    options.add_argument("--bench", action="store_true", help="times, beside those of peers that are installed")
    options.add_argument("--layers", default="resnet50-32", help="cases whose kernels are timed one by one")
    options.add_argument("--json", type=Path, help="every number, and what failed parts said; default: in the folder")
    options.add_argument("--sanitizer", metavar="racecheck", help="run parts under this tool of compute-sanitizer")
    options.add_argument("--driver", default=drivers.LIBRARY, help=argparse.SUPPRESS)
    options.add_argument("--part", nargs=3, metavar=("NAME", "PEAK", "RESULT"), help=argparse.SUPPRESS)
    given = options.parse_args()
    drivers.LIBRARY = given.driver
    if given.part:
        name, peak, result = given.part
        Path(result).write_text(json.dumps(part(given.cases, name, given.bench, float(peak))))
        return
    try:
        driver = drivers.open_driver(drivers.LIBRARY)
    except QCompileError as error:
        print(f"skipped: {error}")
        return
    device = driver.device(0)
    major, minor = driver.capability(device)
    size = f"{driver.processors(device)} multiprocessors"
    print(f"{driver.name(device)}, sm_{major}{minor}, {size}, a driver for CUDA {driver.version}", flush=True)
    parts = parts_of(given.cases, given.bench, [name for name in given.layers.split(",") if name])
    if not parts:
        sys.exit(f"error: no cases in {given.cases}; make them: make cuda-cases")
    results: dict[str, Any] = {}
    bad: list[str] = []
    for name in parts:
        results[name] = _in_a_process(given, name, results.get("peak", {}).get("ops", 0.0))
        if results[name].get("failed") or results[name].get("wrong"):
            bad.append(name)
    _ratios(results)
    (given.json or given.cases / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    if bad:
        sys.exit(f"error: failed, or other results than the oracle's: {', '.join(bad)}")


def parts_of(cases: Path, bench: bool, layers: Sequence[str]) -> list[str]:
    """Names of what there is to do, each of its own."""
    sweeps = [f"sweep {path.parent.name}" for path in sorted(cases.glob("sweep/*/sweep.json"))] if bench else []
    random = ["random layers"] if (cases / "layers").exists() else []
    models = [f"case {path.parent.name}" for path in sorted(cases.glob("*/case.json"))]
    kernels = [f"kernels {name}" for name in layers if bench and (cases / name).exists()]
    peers = [f"{peer} {batch}" for peer in PEERS for batch in (1, 32)] if bench else []
    return [*["peak"] * bool(sweeps), *random, *models, *kernels, *peers, *sweeps] if models or random else []


def part(cases: Path, name: str, bench: bool, peak: float) -> dict[str, Any]:
    """Prints what it finds, and returns the numbers; "wrong" if results are not the oracle's."""
    kind, _, which = name.rpartition(" ")
    if name == "peak":
        return _peak(cases)
    if kind == "sweep" or name == "random layers":
        gpu, folder = Gpu(), cases / "sweep" / which if kind == "sweep" else cases / "layers"
        if not gpu.runs(folder):
            print(f"{name:24} left out: its code is for {arch_of(folder)} (make it here, or with --arch)")
            return {"left_out": arch_of(folder)}
    if name == "random layers":
        different = gpu.layers(folder)
        print(f"{name:24} " + (f"WRONG: {different}" if different else "the oracle's bits"))
        return {"wrong": different}
    if kind == "sweep":
        return {"rows": gpu.sweep(folder, peak)}
    if kind in PEERS:
        from benchmarks.cuda import peers

        return peers.measure(kind, int(which))
    return (_check if kind == "case" else _kernels)(cases / which, bench, peak)


def _in_a_process(given: argparse.Namespace, name: str, peak: float) -> dict[str, Any]:
    """What ``part`` returns; "failed", with what it said, if it did not come to its end."""
    with tempfile.TemporaryDirectory(prefix="qcompile-") as folder:
        result = Path(folder) / "result.json"
        tool = ["compute-sanitizer", "--tool", given.sanitizer, "--error-exitcode", "9"] if given.sanitizer else []
        words = [*tool, sys.executable, "-m", "benchmarks.cuda.check", str(given.cases), *["--bench"] * given.bench]
        command = [*words, "--driver", drivers.LIBRARY, "--part", name, str(peak), str(result)]
        try:
            done = subprocess.run(command, stdout=None, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False)
            said = done.stderr.strip() or f"ended with {done.returncode}"
            if done.returncode == 0:
                return json.loads(result.read_text())
        except subprocess.TimeoutExpired:
            said = f"no end within {SECONDS} s"
        except OSError as error:  # there is no such tool
            said = f"{command[0]}: {error.strerror}"
    print(f"{name:24} FAILED: {said.splitlines()[-1]}", flush=True)
    return {"failed": said[-_SAID:]}


def _peak(cases: Path) -> dict[str, Any]:
    gpu, folder = Gpu(), sorted(cases.glob("sweep/*/sweep.json"))[0].parent
    if not gpu.runs(folder):
        print(f"peak                     left out: its code is for {arch_of(folder)}")
        return {"left_out": arch_of(folder)}
    ops = gpu.peak(folder)
    print(f"{ops / 1e12:.0f} TOPS int8 by mma.sync alone: the peak below")
    return {"ops": ops}


def _check(case: Path, bench: bool, peak: float) -> dict[str, Any]:
    about = json.loads((case / "case.json").read_text())
    runner = CudaRunner(case / "artifact")
    with np.load(case / "inputs.npz") as stored:
        codes = {name: stored[name] for name in stored.files}
    feed = {
        name: ((array.astype(np.float32) - 128) / 64).astype(np.float32) if array.dtype == np.uint8 else array
        for name, array in codes.items()
    }
    got = runner.run(feed)
    again = runner.run(feed)
    with np.load(case / "outputs.npz") as expected:
        equal = all(np.array_equal(got[name], expected[name]) for name in expected.files)
        near = all(_is_near(got[name], expected[name], about["tolerance"]) for name in expected.files)
    repeats = all(np.array_equal(got[name], again[name]) for name in got)
    good = repeats and (equal or (near and not about["exact"]))
    said = "the oracle's bits" if equal else "near the oracle (float operators)" if good else "WRONG"
    line = f"{case.name:24} {said if repeats else 'DIFFERS FROM CALL TO CALL'}"
    found: dict[str, Any] = {"wrong": not good, "equal": equal}
    if bench:
        runner.microseconds(20)
        times = np.array(runner.microseconds(CALLS))
        macs = sum(layer.macs for layer in runner.manifest.layers)
        rate = 2 * macs / times.min() * 1e6
        share = f", {rate / peak:.1%} of the peak" if peak else ""
        line += f"  min {times.min():.1f} us, median {np.median(times):.1f} us, {rate / 1e12:.1f} TOPS{share}"
        found |= {"min_us": float(times.min()), "median_us": float(np.median(times)), "ops": float(rate)}
    print(line)
    return found


def _is_near(got: np.ndarray, want: np.ndarray, tolerance: float) -> bool:
    """In relation to the largest number."""
    difference = np.abs(got.astype(np.float64) - want)
    return bool(difference.max(initial=0) <= tolerance * np.abs(want).max(initial=1e-6))


def _kernels(case: Path, bench: bool, peak: float) -> dict[str, Any]:
    runner = CudaRunner(case / "artifact")
    rng = np.random.default_rng(0)
    profile = runner.profile({t.name: rng.standard_normal(t.shape).astype(t.dtype) for t in runner.inputs})
    print(f"\n{case.name}, kernel by kernel:")
    rows = []
    for kernel in sorted(profile.kernels, key=lambda k: -k.microseconds)[:25]:
        rate = 2 * kernel.macs / kernel.microseconds * 1e6
        share = f"{rate / peak:6.1%}" if peak and kernel.macs else ""
        print(f"  {kernel.layer:32} {kernel.kernel:20} {kernel.microseconds:8.1f} us {rate / 1e12:7.1f} TOPS {share}")
        rows.append({"layer": kernel.layer, "kernel": kernel.kernel, "us": kernel.microseconds, "ops": rate})
    return {"rows": rows}


def _ratios(results: dict[str, Any]) -> None:
    """Prints how long ResNet-50 takes beside each peer's."""
    for name, found in results.items():
        peer, _, batch = name.rpartition(" ")
        ours = results.get(f"case resnet50-{batch}", {}).get("min_us")
        for what, best in found.get("us", {}).items() if peer in PEERS and ours else ():
            print(f"resnet50 batch {batch}: {ours:.1f} us, {what} {best:.1f} us: {ours / best:.2f}x as long")


if __name__ == "__main__":
    main()
