"""``qcompile bench``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qcompile.cli.console import remark, show, show_json, step
from qcompile.cli.options import names

if TYPE_CHECKING:
    from qcompile.cli.feeds import Feed
    from qcompile.manifest import Manifest


def bench(
    path: Annotated[Path, typer.Argument(help="The artifact folder.")],
    vs: Annotated[list[str] | None, typer.Option("--vs", help="Peers: onnxruntime,openvino (or none).")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="The ONNX model, for the peers; else sought here by its name.")
    ] = None,
    calib_data: Annotated[Path | None, typer.Option("--calib-data", help="For the peers' int8; else noise.")] = None,
    num_samples: Annotated[int, typer.Option("--num-samples", min=1, help="Of the calibration data.")] = 32,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="As the artifact was built for.")] = None,
    duration: Annotated[float, typer.Option("--duration", min=0.01, help="Seconds of calls, each contender.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="For machines; times in microseconds.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tracebacks of defects.")] = False,
) -> None:
    """Measure latency against ONNX Runtime and OpenVINO.

    In turns, in one run, on the float model and on each peer's own int8 of it; and against the machine's peak, which a
    micro-kernel gives in the same turns.

    \b
    Examples:
      qcompile bench out/ --model model.onnx --calib-data samples.npz
      qcompile bench out/ --vs openvino --threads 2 --duration 5 --json
      qcompile bench out/ --vs none
    """
    from qcompile.artifact import open_artifact
    from qcompile.bench import Contender, Peak, measure
    from qcompile.bench.peers import PEERS, check_peers, peer_contenders
    from qcompile.calibrate import random_data
    from qcompile.errors import QCompileError
    from qcompile.report.latency import latency_rows, latency_table
    from qcompile.report.profile import gops

    manifest = open_artifact(path, verify=False).manifest
    if manifest.launches:
        _bench_gpu(path, vs, duration, as_json)
        return
    peers = [p for p in names(vs or [",".join(PEERS)]) if p != "none"]
    check_peers(peers)
    threads = threads or manifest.threads
    if threads != manifest.threads:
        raise QCompileError(
            f"built for {manifest.threads} thread{'s' * (manifest.threads > 1)}, not {threads}",
            node=str(path),
            remedy=f"build it with --threads {threads}",
        )
    feed = next(iter(random_data([t.spec for t in manifest.inputs], 1)))
    format = _main_format(manifest)
    contenders = [Contender("qcompile", format, path, threads, feed)]
    if peers:
        source = _source(manifest, model)
        peer_feeds = _calibration(source, manifest, calib_data, num_samples)
        with step("making the peers' int8 models"):
            contenders += peer_contenders(
                peers, source, peer_feeds, peer_feeds[0], threads, lambda text: remark(f"note: {text}")
            )
    peak = Peak(manifest.target, format, threads)
    everyone: list[Contender | Peak] = [*contenders, peak]
    with step(f"measuring {len(contenders)} contenders"):
        measured = measure(everyone, duration)
    latencies = {contender: measured[contender] for contender in contenders}
    reached = gops(sum(layer.macs for layer in manifest.layers), 1e6 * latencies[contenders[0]].minimum)
    highest = peak.gops(measured[peak].minimum)
    if as_json:
        head = {"model": manifest.model, "target": manifest.target, "threads": manifest.threads}
        show_json({**head, "gops": reached, "peak_gops": highest, "contenders": latency_rows(latencies)})
    else:
        show(latency_table(latencies))
        show(f"qcompile {format}: {reached:.0f} GOPS, {reached / highest:.1%} of a micro-kernel's {highest:.0f}")


def _bench_gpu(path: Path, vs: list[str] | None, duration: float, as_json: bool) -> None:
    """Our latency on the GPU, by its own clock: the peers here run on CPUs."""
    from qcompile.bench import Contender, Latency
    from qcompile.errors import QCompileError
    from qcompile.report.latency import latency_rows, latency_table
    from qcompile.report.profile import gops
    from qcompile.runtime import CudaRunner

    if vs is not None and vs != ["none"]:
        raise QCompileError("there are no peers on GPUs here", node="--vs", remedy="leave it out; see make bench-cuda")
    with step("measuring"):
        runner = CudaRunner(path, verify=False)
        first = max(runner.microseconds(10)[1:])
        times = runner.microseconds(max(10, int(1e6 * duration / max(first, 1))))
    manifest = runner.manifest
    format, latency = _main_format(manifest), Latency.of([t / 1e6 for t in times])
    reached = gops(sum(layer.macs for layer in manifest.layers), 1e6 * latency.minimum)
    latencies = {Contender("qcompile", format, path): latency}
    if as_json:
        head = {"model": manifest.model, "target": manifest.target, "device": runner.device_name}
        show_json({**head, "gops": reached, "contenders": latency_rows(latencies)})
    else:
        show(latency_table(latencies))
        show(f"qcompile {format}: {reached:.0f} GOPS on {runner.device_name}")


def _main_format(manifest: Manifest) -> str:
    """The format in which most multiply-accumulates are; without any, int8 if a layer is."""
    macs: dict[str, int] = {}
    for layer in manifest.layers:
        macs[layer.format] = macs.get(layer.format, 0) + layer.macs
    return max(macs, key=lambda name: (macs[name], name == "int8"), default="fp32")


def _source(manifest: Manifest, model: Path | None) -> Path:
    """The ONNX file that the artifact was built from."""
    from qcompile.errors import QCompileError

    source = model or Path(manifest.model)
    if not source.is_file():
        raise QCompileError(
            "the peers need the ONNX model, and it is not there",
            node=str(source),
            remedy="give it by --model model.onnx, or measure alone with --vs none",
        )
    if manifest.model_sha256 and hashlib.sha256(source.read_bytes()).hexdigest() != manifest.model_sha256:
        raise QCompileError(
            "not the model that the artifact was built from", node=str(source), remedy="give that one by --model"
        )
    return source


def _calibration(source: Path, manifest: Manifest, data: Path | None, count: int) -> list[Feed]:
    """Float feeds of the ONNX model: an artifact with integer inputs has the same shapes, but not the dtypes."""
    from qcompile.calibrate import calibration_data, random_data
    from qcompile.model import TensorSpec

    specs = [TensorSpec(t.name, t.shape, "float32" if t.quantization else t.dtype) for t in manifest.inputs]
    if data is None:
        remark("note: no --calib-data, so the peers' int8 models are calibrated on noise (their speed is the same)")
        return list(random_data(specs, 4))
    return list(calibration_data(data, specs, count))
