from __future__ import annotations

from io import StringIO

from rich.console import Console

from qcompile.report.profile import profile_rows, profile_table
from qcompile.runtime import KernelTime, Profile

PROFILE = Profile(
    kernels=(
        KernelTime("conv2d_0", "conv", 8.0, 4_000_000, "int8"),
        KernelTime("matmul", "head", 1.0, 100_000, "fp32"),
        KernelTime("softmax", "probs", 0.5),
    ),
    overhead=1.0,
    clock=0.5,
    call=10.0,
)


def lines(peaks: dict[str, float]) -> list[str]:
    text = StringIO()
    Console(file=text, width=200).print(profile_table(PROFILE, peaks))
    return [" ".join(line.split()) for line in text.getvalue().splitlines()]


def test_kernels_against_the_peak_of_their_format():
    rows = lines({"int8": 1250.0, "fp32": 400.0})
    assert rows[1] == "layer kernel us share MACs GOPS of peak"
    assert rows[3:9] == [
        "conv conv2d_0 8.0 80.0% 4M 1000 80.0%",
        "head matmul 1.0 10.0% 100k 200 50.0%",
        "probs softmax 0.50 5.0%",
        "call overhead 1.0 10.0%",
        "less the clock's readings -0.50 -5.0%",
        "whole call 10.0 100.0% 4.1M 820 65.6%",
    ]


def test_without_a_peak():
    rows = lines({})
    assert rows[1] == "layer kernel us share MACs GOPS"
    assert "whole call 10.0 100.0% 4.1M 820" in rows


def test_for_machines():
    rows = profile_rows(PROFILE, {"int8": 1250.0})
    assert (rows["call_us"], rows["overhead_us"], rows["clock_us"]) == (10.0, 1.0, 0.5)
    assert rows["peak_gops"] == {"int8": 1250.0}
    first, *_, last = rows["kernels"]
    assert first == {
        "layer": "conv", "kernel": "conv2d_0", "us": 8.0, "format": "int8", "macs": 4_000_000, "gops": 1000.0
    }  # fmt: skip
    assert last["gops"] == 0
