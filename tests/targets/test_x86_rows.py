"""The rows of ``targets.x86`` as LLVM sees them: names it knows, and in the code the instructions that they promise."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from tvm.ir import IRModule

from qcompile.compile import compile_entry
from qcompile.passes.emit_entry import Entry
from qcompile.targets.kernels.conv import conv2d
from qcompile.targets.kernels.depthwise import depthwise_conv2d
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target
from qcompile.targets.x86 import ROWS
from tests.targets.weighted import INTEGER, constants_of, conv

EVERY = [*ROWS, *(row.extended(word) for row in ROWS for word, _ in row.optional)]
each_target = pytest.mark.parametrize("target", EVERY, ids=lambda target: target.name)


@cache
def assembly(target: Target, window: int, depthwise: bool = False) -> list[str]:
    """Of a convolution of 64 channels on 14 x 14 pixels."""
    pad = window // 2
    spec = conv(INTEGER["codes"], padding=(pad, pad, pad, pad), groups=64 if depthwise else 1)
    x = Storage((1, 64, 14, 14), "uint8", 16, spec.padding, 7)
    out = Storage((1, 64, 14, 14), "uint8", 16)
    constants = constants_of(spec, (64, 1 if depthwise else 64, window, window), np.random.default_rng(0))
    kernel = (depthwise_conv2d if depthwise else conv2d)(spec, constants, x, out, None, target)
    module = IRModule({"main": kernel.function.with_attr("global_symbol", "main")})
    executable = compile_entry(Entry(module, np.zeros(1, np.uint8), 0, ()), target)
    return executable.mod.inspect_source("asm").splitlines()


def instruction(target: Target) -> str:
    return target.dot.name.partition(".")[0]


@each_target
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions_consist_of_the_rows_dot_product(target, depthwise):
    register = {512: "zmm", 256: "ymm"}[target.vector_bits]
    dots = [line for line in assembly(target, 3, depthwise) if instruction(target) in line]
    assert len(dots) >= 8
    assert all(register in line for line in dots)


@each_target
@pytest.mark.parametrize("depthwise", [False, True])
def test_no_wider_registers_than_the_row_has(target, depthwise):
    """AVX-512 code on a machine of 256 bits is an illegal instruction."""
    wide = re.compile(r"%zmm|%k[0-7]\b|%[xy]mm(1[6-9]|[23]\d)\b")
    assert target.vector_bits == 512 or not [line for line in assembly(target, 3, depthwise) if wide.search(line)]


@pytest.mark.parametrize("window", [1, 3])
def test_inner_loops_keep_their_accumulators_in_registers(window):
    """Default tiles of the main row: no inner loop of dot products stores a vector anywhere."""
    target = ROWS[0]
    loops = [
        loop for loop in inner_loops(assembly(target, window)) if any(instruction(target) in line for line in loop)
    ]
    assert loops
    stores = re.compile(r"vmov\S+\s+%[xyz]mm\d+, .*\(")
    assert not [line for loop in loops for line in loop if stores.search(line)]


def inner_loops(lines: list[str]) -> list[list[str]]:
    """From a label to a jump back to it, with no other label in between."""
    loops, label, start = [], "", 0
    for i, line in enumerate(lines):
        if found := re.match(r"(\.LBB\w+):", line):
            label, start = found[1], i
        elif label and re.match(rf"\s+j\w+\s+{re.escape(label)}\b", line):
            loops.append(lines[start : i + 1])
    return loops


def test_optional_features_extend_a_row():
    for target in ROWS:
        assert target.tvm_target().attrs["mcpu"] == target.mcpu
        assert len(set(target.features)) == len(target.features)
        for word, llvm in target.optional:
            extended = target.extended(word)
            assert extended.has(word) and f"+{llvm}" in extended.mattr and extended.name == f"{target.name}+{word}"
            assert extended.extended(word).features == extended.features


def test_builds_do_not_depend_on_the_host():
    for target in EVERY:
        assert "native" not in (target.mcpu, *target.mattr)
        assert target.triple.startswith("x86_64")


def test_threads_are_told_to_tvm():
    assert int(ROWS[0].with_threads(3).tvm_target().attrs["num-cores"]) == 3
