"""The micro-kernel computes what it claims to compute, without leaving registers, and is measured like a contender."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tvm.ir import IRModule

from qcompile.bench import Contender, Latency, Peak, measure, measure_peak
from qcompile.bench.peak import _STEPS, _Tile, peak_kernel
from qcompile.compile import compile_module
from qcompile.errors import QCompileError
from qcompile.reference.bfloat16 import to_bits
from qcompile.targets.select import can_run
from qcompile.targets.x86 import ROWS
from tests.runtime import handmade

ARITHMETIC = {"int8": r"vpdpbusd|vpmaddwd", "fp32": r"vfm(?:add|sub)\w+ps", "bf16": r"vdpbf16ps"}
CASES = [(row, format) for row in ROWS for format in ("int8", "fp32")] + [(ROWS[0].extended("avx512_bf16"), "bf16")]


def compiled(target, format: str):
    return compile_module(IRModule({"main": peak_kernel(target, format).with_attr("global_symbol", "main")}), target)


def loops(assembly: str) -> list[list[str]]:
    """Instructions between a label and a jump back to it."""
    found, seen = [], {}
    lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
    for number, line in enumerate(lines):
        if label := re.fullmatch(r"(\.L\w+):", line):
            seen[label[1]] = number
        elif (jump := re.match(r"j\w+\s+(\.L\w+)", line)) and jump[1] in seen:
            body = lines[seen[jump[1]] + 1 : number]
            found.append([text for text in body if text and not text.startswith(".")])
    return found


@pytest.mark.parametrize(("row", "format"), CASES, ids=lambda each: getattr(each, "name", each))
def test_the_inner_loop_is_arithmetic_on_registers(row, format):
    tile = _Tile.of(row, format)
    found = loops(compiled(row, format).mod.inspect_source("asm"))
    body = min((lines for lines in found if any(re.search(ARITHMETIC[format], line) for line in lines)), key=len)
    count = sum(bool(re.search(ARITHMETIC[format], line)) for line in body)
    assert count >= 8 and count % (tile.pixels * tile.vectors) == 0
    assert not [line for line in body if "rsp" in line or "rbp" in line], "spilled"
    assert not [line for line in body if re.search(r"mov\w+\s+%\wmm\d+, .*\(", line)], "stored"


@pytest.mark.parametrize(("row", "format"), CASES, ids=lambda each: getattr(each, "name", each))
def test_every_product_is_computed(row, format):
    """What ``macs`` counts: each step's inputs times all weights, ``passes`` times."""
    if not can_run(row):
        pytest.skip(f"this CPU cannot run {row.name}")
    import tvm

    tile = _Tile.of(row, format)
    random = np.random.default_rng(0)
    integer = format == "int8"
    x = random.integers(0, 3, (_STEPS, tile.pixels, tile.lanes, tile.group)).astype(np.uint8 if integer else np.float32)
    w = random.integers(-1, 2, (tile.vectors, tile.lanes, tile.group)).astype(np.int8 if integer else np.float32)
    y = np.zeros(tile.results, tile.accumulator)
    result = tvm.runtime.tensor(y)
    arguments = [to_bits(a) if format == "bf16" else a for a in (x, w)]
    compiled(row, format)["main"](*(tvm.runtime.tensor(a.reshape(-1)) for a in arguments), result)
    exact = tile.passes * np.einsum("splg,vlg->pvl", x.astype(np.int64), w.astype(np.int64))
    assert np.abs(exact).max() < 1 << 24, "sums that float32 holds exactly"
    np.testing.assert_array_equal(result.numpy().reshape(exact.shape), exact)
    assert Peak(row.name, format).macs == tile.passes * x.size * tile.vectors


def test_a_multiply_accumulate_is_two_operations():
    peak = Peak("x86-vnni", "int8", 2)
    assert peak.macs == 2 * Peak("x86-vnni", "int8").macs
    assert peak.gops(0.001) == pytest.approx(2 * peak.macs / 1e6)
    assert Peak("x86-vnni", "int8").macs == 4 * Peak("x86-vnni", "fp32").macs


def test_is_measured_like_a_contender(tmp_path):
    """In this process, and on two threads in one of its own."""
    out = handmade.build(tmp_path / "out").path
    ours, peak = Contender("qcompile", "int8", out, 1, {"x": np.zeros((1, 64), np.float32)}), Peak("native", "int8")
    found = measure([ours, peak], 0.05)
    assert isinstance(found[peak], Latency) and found[ours].minimum < found[peak].minimum
    pair = Peak("native", "fp32", threads=2)
    assert measure([pair], 0.05)[pair].calls


def test_without_contenders():
    assert measure_peak("native", "int8", seconds=0.02) > 0
    with pytest.raises(QCompileError, match="no target 'x87'"):
        measure_peak("x87", "int8")
