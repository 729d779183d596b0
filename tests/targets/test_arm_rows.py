"""The rows of ``targets.arm`` as LLVM sees them: names it knows, and in the code the instructions that they promise."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tvm import tirx
from tvm.ir import IRModule
from tvm.script.ir_builder import tirx as T

from qcompile.compile import compile_module
from qcompile.passes.store_activations import stored_spec
from qcompile.targets.arm import CORES, ROWS
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.conv import conv2d
from qcompile.targets.kernels.depthwise import depthwise_conv2d
from qcompile.targets.storage import Storage
from qcompile.targets.target import Target
from tests.targets.weighted import INTEGER, constants_of, conv

each_row = pytest.mark.parametrize("target", ROWS, ids=lambda target: target.name)
each_target = pytest.mark.parametrize("target", [*ROWS, *CORES], ids=lambda target: target.name)


def assembly(target: Target, window: int = 3, depthwise: bool = False) -> list[str]:
    """Of a convolution of 32 channels on 10 x 10 pixels."""
    pad = window // 2
    spec = conv(INTEGER["codes"], padding=(pad, pad, pad, pad), groups=32 if depthwise else 1)
    spec = stored_spec(spec, target.activation)
    x = Storage((1, 32, 10, 10), "int8", 16, spec.padding, 7)
    out = Storage((1, 32, 10, 10), "int8", 16)
    constants = constants_of(spec, (32, 1 if depthwise else 32, window, window), np.random.default_rng(0))
    kernel = (depthwise_conv2d if depthwise else conv2d)(spec, constants, x, out, None, target)
    module = IRModule({"main": kernel.function.with_attr("global_symbol", "main")})
    return compile_module(module, target).mod.inspect_source("asm").splitlines()


@each_row
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions_consist_of_the_rows_dot_product(target, depthwise):
    """Of matrix products, if it has them and there are pixels to pair."""
    product = target.matrix if target.matrix and not depthwise else target.dot
    lines = [line for line in assembly(target, 3, depthwise) if re.search(rf"\t{product.name}2?\t", line)]
    assert len(lines) >= 8


@pytest.mark.parametrize("target", ROWS[:2], ids=lambda target: target.name)
def test_inner_loops_keep_their_accumulators_in_registers(target):
    """Default tiles: most of a loop over a reduction are products, and it stores nothing."""
    product = f"\t{(target.matrix or target.dot).name}\t"
    loops = [loop for loop in inner_loops(assembly(target)) if sum(product in line for line in loop) > len(loop) / 2]
    assert loops
    assert not [line for loop in loops for line in loop if re.search(r"\tstu?[rp]\t[qd]", line)]


def inner_loops(lines: list[str]) -> list[list[str]]:
    """From a label to a branch back to it, with no other label in between: their instructions."""
    loops, label, start = [], "", 0
    for i, line in enumerate(lines):
        if found := re.match(r"(\.LBB\w+):", line):
            label, start = found[1], i
        elif label and re.match(rf"\s+(b\.\w+|[ct]bn?z)\s.*{re.escape(label)}\b", line):
            loops.append([text for text in lines[start + 1 : i + 1] if re.match(r"\t[a-z]", text)])
    return loops


@each_target
def test_no_instructions_beyond_the_features(target):
    """Neither SVE registers, nor dot or matrix products that the row does not have."""
    code = "\n".join(assembly(target, 1))
    assert not re.search(r"\bz\d+\.|\bp\d+/[mz]", code)
    assert target.has("asimddp") or not re.search(r"\t[su]dot\t", code)
    assert target.has("i8mm") or not re.search(r"\tu?s?mmla\t|\tusdot\t", code)


@each_row
def test_the_clock_is_one_that_programs_may_read(target):
    """LLVM could mean PMCCNTR_EL0 by the cycle counter, which traps."""

    def body(y) -> None:
        T.buffer_store(y, tirx.call_llvm_intrin("int64", "llvm.readcyclecounter"), [0])

    function = b.kernel("clock", [("y", "int64", 1)], body).with_attr("global_symbol", "main")
    code = compile_module(IRModule({"main": function}), target).mod.inspect_source("asm")
    assert "CNTVCT_EL0" in code and "PMCCNTR" not in code


@each_target
def test_builds_do_not_depend_on_the_host(target):
    assert "native" not in (target.mcpu, *target.mattr)
    assert target.triple.startswith("aarch64") and target.activation == "int8"
    assert target.dot.lanes == target.lanes


@pytest.mark.parametrize("core", CORES, ids=lambda target: target.name)
def test_a_core_is_a_level_with_caches_of_its_own(core):
    row = next(row for row in ROWS if row.dots == core.dots and set(row.features) <= set(core.features))
    assert core.l2_bytes >= 256 << 10 and core.vector_registers == row.vector_registers
