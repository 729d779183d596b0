"""Loops in traces of instructions, their cycles by llvm-mca, and the counts of layers."""

from __future__ import annotations

import pytest

from benchmarks.arm import mca
from benchmarks.arm.layers import distinct, layer_counts, layers_table
from benchmarks.arm.loops import branch_target, hottest_loop
from qcompile.manifest import KernelCall, LayerInfo, Manifest
from qcompile.runtime.counting import Executed

# From a disassembler, at address 0x1000.
BRANCHES = {
    0x17FFFFFF: 0x0FFC,  # b #-4
    0x54FFFFC1: 0x0FF8,  # b.ne #-8
    0xB4000040: 0x1008,  # cbz x0, #8
    0x35FFFF60: 0x0FEC,  # cbnz w0, #-20
    0x36180041: 0x1008,  # tbz w1, #3, #8
    0xB717FFE2: 0x0FFC,  # tbnz x2, #34, #-4
}
CALL, ADD, SDOT, BACK_8, BACK_20 = 0x94000002, 0x91000400, 0x4F84E020, 0x54FFFFC1, 0x54FFFF61

# A loop of 100 passes of three instructions, in one of 10 passes that begins where it does less one.
TRACE = [
    Executed(0x1000, ADD, "add", 1),
    Executed(0x1004, ADD, "add", 10),
    Executed(0x1008, SDOT, "sdot", 100),
    Executed(0x100C, SDOT, "sdot", 100),
    Executed(0x1010, BACK_8, "b.ne", 100),
    Executed(0x1014, ADD, "add", 10),
    Executed(0x1018, BACK_20, "b.ne", 10),
    Executed(0x101C, CALL, "bl", 1),
]

REPORT = """\
Iterations:        200
Instructions:      800
Total Cycles:      405
Total uOps:        1600

Dispatch Width:    8

Instruction Info:
[1]: #uOps
[2]: Latency

[1]    [2]    [3]    [4]    [5]    [6]    Instructions:
 1      2     0.50                        sdot\tv0.4s, v1.16b, v4.4b[0]
 2      5     0.50    *                   ldr\tq8, [x0]
 4      2     1.00           *            str\tq8, [x1]
 1      2     0.50                  U     sdot\tv0.4s, v1.16b, v4.4b[0]
 1      4     1.00                        fmla\tv1.4s, v2.4s, v3.4s
 1      1     1.00                        b.ne\t#-8


Resources:
[0]   - N1UnitB

Resource pressure by instruction:
[0]    [1.0]  [1.1]  [2.0]  [2.1]  [2.2]  [3]    [4.0]  [4.1]  [5]    [6]    Instructions:
 -      -      -      -      -      -      -      -      -     0.50   0.50   sdot\tv0.4s, v1.16b, v4.4b[0]
"""


@pytest.mark.parametrize("code", BRANCHES, ids=hex)
def test_branches_lead_where_the_disassembler_says(code):
    assert branch_target(0x1000, code) == BRANCHES[code]


@pytest.mark.parametrize("code", [CALL, ADD, SDOT, 0xD65F03C0, 0xD61F0000], ids=hex)
def test_calls_and_the_rest_are_no_branches(code):
    assert branch_target(0x1000, code) is None


def test_the_hottest_loop_is_an_innermost_one():
    loop = hottest_loop(TRACE)
    assert loop.mnemonics == ("sdot", "sdot", "b.ne") and loop.codes == (SDOT, SDOT, BACK_8)
    assert loop.passes == 100 and loop.instructions == 300


def test_straight_code_has_no_loop():
    assert hottest_loop([i for i in TRACE if i.mnemonic != "b.ne"]) is None


def test_what_few_passes_execute_is_no_part_of_a_pass():
    rare = [*TRACE[:3], Executed(0x100C, ADD, "add", 7), *TRACE[4:]]
    loop = hottest_loop(rare)
    assert loop.mnemonics == ("sdot", "b.ne") and loop.instructions == 207


def test_a_report_is_read():
    """The limit is that of the two dot products alone."""
    assert mca.read_report(REPORT) == mca.Cycles(405 / 200, 1.0)
    floats = "\n".join(line for line in REPORT.splitlines() if "sdot" not in line)
    assert mca.read_report(floats).limit == 1.0


def test_cycles_of_a_core():
    if reason := mca.missing():
        pytest.skip(reason)
    many = [0x4F84E020 + register for register in range(2, 18)]  # sdot v2..v17, v1, v4[0]
    found = mca.loop_cycles([*many, BACK_8], "neoverse-n1")
    assert found.limit == 8 and found.cycles == pytest.approx(8, rel=0.05)


def test_no_llvm_mca_is_explained(monkeypatch):
    monkeypatch.setattr(mca.shutil, "which", lambda name: None)
    mca._tools.cache_clear()
    assert mca.missing() == "no llvm-mca of LLVM 16 or newer found: 'apt install llvm-19' (or newer) has one"
    mca._tools.cache_clear()


def test_counts_of_layers_add_up():
    layers = (LayerInfo("conv", "conv2d", "int8", "conv2d sdot 1x4x16", ((1, 4),), (1, 4), macs=3200),)
    calls = (KernelCall("quantize_0", "input"), KernelCall("conv2d_0", "conv"))
    manifest = Manifest("m", "", 0, "arm", "", (), 1, (), (), 0, layers=layers, calls=calls)
    first, conv = layer_counts(manifest, [TRACE[:2], TRACE], cpu="")
    assert (first.instructions, first.products, first.macs, first.in_loop) == (11, 0, 0, 0)
    assert (conv.instructions, conv.products, conv.macs) == (332, 200, 3200)
    assert (conv.in_loop, conv.passes, conv.cycles) == (300, 100, None)


@pytest.mark.parametrize(("inside", "shown"), [("add", "2.00"), ("scvtf", "*2.00")])
def test_a_loop_that_makes_codes_of_sums_is_marked(monkeypatch, inside, shown):
    monkeypatch.setattr(mca, "loop_cycles", lambda codes, cpu: mca.Cycles(8.0, 4.0))
    calls = (KernelCall("conv2d_0", "conv"),)
    manifest = Manifest("m", "", 0, "arm", "", (), 1, (), (), 0, calls=calls)
    trace = [*TRACE[:3], Executed(0x100C, ADD, inside, 100), *TRACE[4:]]
    shape = layers_table(layer_counts(manifest, [trace], "neoverse-n1"), "")
    assert list(shape.columns[-1].cells) == [shown, "2.00"]


def test_names_are_cut_to_what_tells_them_apart():
    names = ["relu_1;bn;conv_1/bias;conv_1", "relu_2;bn;conv_2/bias", "pool"]
    assert [distinct(name, names) for name in names] == ["relu_1", "relu_2", "pool"]
