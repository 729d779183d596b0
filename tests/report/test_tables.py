from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from qcompile.bench import Contender, Latency
from qcompile.manifest import LayerInfo, ScheduleInfo, TensorInfo
from qcompile.ops import Affine
from qcompile.report.latency import latency_rows, latency_table
from qcompile.report.tables import formats, reasons, schedules, tensor


def layer(name: str, format: str = "int8", reason: str = "") -> LayerInfo:
    return LayerInfo(name, "Conv", format, "", (), (), reason=reason)


def test_formats_are_counted():
    assert formats([layer("a"), layer("b", "fp32"), layer("c")]) == "2 int8, 1 fp32"
    assert formats([]) == "none"


def test_schedules_are_counted_best_known_first():
    sources = ["default", "tuned", "transferred", "tuned"]
    infos = [ScheduleInfo("a", "{}", 1, 1, "{}", source) for source in sources]
    assert list(schedules(infos).items()) == [("tuned", 2), ("transferred", 1), ("default", 1)]
    assert schedules([]) == {}


def test_reasons_are_grouped_most_frequent_first():
    rows = [layer("z", "fp32", "rare"), *(layer(f"n{i}", "fp32", "common") for i in range(4)), layer("i")]
    assert reasons(rows) == ["4 x common (n0, n1, n2, ...)", "1 x rare (z)"]


def test_meaning_of_codes():
    assert tensor(TensorInfo("x", (1, 2), "uint8", Affine(0.5, 3))) == "x uint8 1x2, real = 0.5 * (code - 3)"


def test_latencies_against_the_fastest_and_against_ours():
    ours, peer = Contender("qcompile", "int8", Path("out")), Contender("openvino", "fp32", Path("m.onnx"))
    latencies = {ours: Latency(3e-6, 2e-6, 4e-6, 10), peer: Latency(2e-6, 1e-6, 9e-6, 20)}
    text = StringIO()
    Console(file=text, width=100).print(latency_table(latencies))
    rows = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert "qcompile int8 3.0 2.0 4.0 1.50x 1.00x" in rows
    assert "openvino fp32 2.0 1.0 9.0 1.00x 0.67x" in rows
    assert latency_rows(latencies)[1]["ratio_to_fastest"] == 1.0
