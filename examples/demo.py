"""``make demo``: builds the example model for this machine and compares it with ONNX Runtime, side by side.

    python examples/demo.py [-o FOLDER] [--seconds S]

Accuracy is measured on digits that neither training nor calibration has seen; latency is that of one image on one
thread, each engine in turns in this process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

import qcompile as qc
from qcompile.bench import Contender, Latency, measure
from qcompile.bench.peers import int8_model
from qcompile.report import units

DIGITS = Path(__file__).parent / "digits"
SHADES = " .:-=+*#%@"
Predict = Callable[[np.ndarray], np.ndarray]  # float32 [1, 1, 8, 8] -> float32 [1, 10]


def build(out: Path, console: Console) -> dict[str, Path]:
    """Artifacts by format."""
    start = time.perf_counter()
    with console.status("importing and calibrating"):
        model = qc.import_onnx(DIGITS / "model.onnx")
        stats = qc.calibrate(model, DIGITS / "calib.npz")
    artifacts = {}
    for precision in ("fp32", "int8"):
        with console.status(f"building {precision}"):
            plan = qc.plan_uniform(model, stats, precision)
            artifacts[precision] = qc.build(model, plan, out=out / precision)
    built = artifacts["int8"]
    integer = sum(layer.macs for layer in built.manifest.layers if layer.format == "int8")
    macs = sum(layer.macs for layer in built.manifest.layers)
    console.print(
        f"built {DIGITS.name}/model.onnx for {built.manifest.target} in {time.perf_counter() - start:.1f} s\n"
        f"{integer / macs:.0%} of its {units.count(macs)} multiplications are 8-bit in the int8 build",
        highlight=False,
    )
    return {precision: artifact.path for precision, artifact in artifacts.items()}


def predictor(contender: Contender) -> Predict:
    if contender.engine == "qcompile":
        runner = qc.load(contender.path)
        return lambda image: runner.run({"image": image})["scores"]
    session = ort.InferenceSession(contender.path, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def size(contender: Contender) -> int:
    """Bytes that one ships: an ONNX file or an artifact folder."""
    path = contender.path
    return sum(f.stat().st_size for f in path.iterdir()) if path.is_dir() else path.stat().st_size


def show_reading(image: np.ndarray, found: int, console: Console) -> None:
    """One digit and what the int8 library takes it for."""
    rows = ["".join(2 * SHADES[round(9 * float(grey))] for grey in row) for row in image[0, 0]]
    rows[4] += f"    <- the int8 library reads a {found}"
    console.print("\n".join(rows), highlight=False, markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("out/demo"), help="folder for the two artifacts")
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each row of the table")
    options = parser.parse_args()
    console = Console()

    folders = build(options.out, console)
    test, calibration = np.load(DIGITS / "test.npz"), np.load(DIGITS / "calib.npz")["image"]
    images, labels = test["image"][:, None], test["labels"]
    with console.status("quantizing with ONNX Runtime's own tool"):
        quantized = int8_model("onnxruntime", DIGITS / "model.onnx", [{"image": i[None]} for i in calibration])
    paths = {
        ("onnxruntime", "fp32"): DIGITS / "model.onnx",
        ("onnxruntime", "int8"): quantized,
        ("qcompile", "fp32"): folders["fp32"],
        ("qcompile", "int8"): folders["int8"],
    }
    contenders = [Contender(*key, path=path, feed={"image": images[0]}) for key, path in paths.items()]

    with console.status("measuring"):
        right = {}
        for contender in contenders:
            predict = predictor(contender)
            right[contender] = sum(predict(i).argmax() == label for i, label in zip(images, labels, strict=True))
        latencies = measure(contenders, options.seconds)
    console.print(comparison(contenders, right, latencies, len(labels)))

    reference, *_, ours = contenders
    show_reading(images[0], int(predictor(ours)(images[0]).argmax()), console)
    fastest = min(latencies[c].median for c in contenders if c.engine == "onnxruntime")
    console.print(
        f"\n[bold green]{fastest / latencies[ours].median:.1f} times as fast as ONNX Runtime at its fastest, "
        f"{right[ours]} of {len(labels)} digits right (float32: {right[reference]})[/]\n"
        f"Next: .venv/bin/qcompile inspect {ours.path} --layers",
        highlight=False,
        soft_wrap=True,
    )


def comparison(
    contenders: list[Contender], right: dict[Contender, int], latencies: dict[Contender, Latency], digits: int
) -> Table:
    table = Table(title=f"\nhandwritten digits: {digits} test images, one thread")
    for column in ("engine", "format", "accuracy", "on disk", "latency (median)", "(min)"):
        table.add_column(column, justify="left" if column in ("engine", "format") else "right")
    for contender in contenders:
        latency = latencies[contender]
        table.add_row(
            contender.engine,
            contender.format,
            f"{right[contender] / digits:.1%}",
            units.size(size(contender)),
            f"{1e6 * latency.median:.1f} us",
            f"{1e6 * latency.minimum:.1f} us",
            style="bold" if contender is contenders[-1] else "",
        )
    return table


if __name__ == "__main__":
    main()
