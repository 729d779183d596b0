"""Every row's dot product on this machine's instructions against ``Dot.reference``."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.ir import IRModule

from qcompile.reference.bfloat16 import from_bits, rounded, to_bits
from qcompile.targets.kernels import builder as b
from qcompile.targets.select import can_run
from qcompile.targets.x86 import ROWS
from tests.targets.running import FLOAT_ROWS

EXTREMES = [(255, -128), (255, 127), (0, -128), (1, -1)]


EVERY = [pytest.param((row, dot), id=f"{row.name}-{dot.name}") for row in ROWS for dot in row.dots]


@pytest.fixture(scope="module", params=EVERY)
def dots(request):
    """(dot product, its instruction with one group of codes for all lanes, the same with a group for each lane)."""
    row, dot = request.param
    if not can_run(row):
        pytest.skip(f"this CPU cannot run {row.name}")
    size = dot.lanes * dot.group

    def accumulate(acc, operand, weight, y):
        sums = dot.accumulate(b.load(acc, 0, dot.lanes), operand, dot.widen(b.load(weight, 0, size)))
        b.store(y, 0, sums, dot.lanes)

    def spread(codes, acc, weight, y):
        accumulate(acc, dot.spread(b.load(codes, 0, dot.group)), weight, y)

    def each(codes, acc, weight, y):
        accumulate(acc, dot.each(b.load(codes, 0, size)), weight, y)

    def buffers(elements):
        return [
            ("codes", "uint8", elements),
            ("acc", "int32", dot.lanes),
            ("weight", "int8", size),
            ("y", "int32", dot.lanes),
        ]

    functions = {
        "spread": b.kernel("spread", buffers(dot.group), spread).with_attr("global_symbol", "spread"),
        "each": b.kernel("each", buffers(size), each).with_attr("global_symbol", "each"),
    }
    library = tvm.compile(IRModule(functions), row.tvm_target())

    def call(name):
        def run(codes, acc, weights):
            y = tvm.runtime.tensor(np.full(dot.lanes, -1, np.int32))
            library[name](*(tvm.runtime.tensor(np.ascontiguousarray(a).reshape(-1)) for a in (codes, acc, weights)), y)
            return y.numpy()

        return run

    return dot, call("spread"), call("each")


def test_random_codes(dots):
    (dot, spread, _), rng = dots, np.random.default_rng(0)
    for _ in range(50):
        codes = rng.integers(0, 256, dot.group).astype(np.uint8)
        weights = rng.integers(-128, 128, (dot.lanes, dot.group)).astype(np.int8)
        acc = rng.integers(-(2**30), 2**30, dot.lanes).astype(np.int32)
        np.testing.assert_array_equal(spread(codes, acc, weights), dot.reference(acc, codes, weights))


def test_codes_of_its_own_for_each_lane(dots):
    """Depthwise: lane by lane, the reference of one lane."""
    (dot, _, each), rng = dots, np.random.default_rng(1)
    for _ in range(20):
        codes = rng.integers(0, 256, (dot.lanes, dot.group)).astype(np.uint8)
        weights = rng.integers(-128, 128, (dot.lanes, dot.group)).astype(np.int8)
        acc = rng.integers(-(2**30), 2**30, dot.lanes).astype(np.int32)
        want = [dot.reference(acc[i : i + 1], codes[i], weights[i : i + 1])[0] for i in range(dot.lanes)]
        np.testing.assert_array_equal(each(codes, acc, weights), want)


@pytest.mark.parametrize(("code", "weight"), EXTREMES)
def test_extremes_do_not_saturate(dots, code, weight):
    """255 * 127 * 2 is beyond int16: pmaddubsw, the usual way without VNNI, would give 32767 a pair."""
    dot, spread, each = dots
    acc = np.full(dot.lanes, 5, np.int32)
    weights = np.full((dot.lanes, dot.group), weight, np.int8)
    want = np.full(dot.lanes, 5 + dot.group * code * weight, np.int32)
    np.testing.assert_array_equal(spread(np.full(dot.group, code, np.uint8), acc, weights), want)
    np.testing.assert_array_equal(each(np.full(weights.size, code, np.uint8), acc, weights), want)
    np.testing.assert_array_equal(dot.reference(acc, np.full(dot.group, code, np.uint8), weights), want)


def test_sums_wrap_as_int32(dots):
    """No saturation at the upper end either: the shifted bias of a layer may wrap, and wraps back."""
    dot, spread, _ = dots
    acc = np.full(dot.lanes, 2**31 - 1, np.int32)
    ones = np.ones((dot.lanes, dot.group), np.int8)
    want = np.full(dot.lanes, -(2**31) + dot.group - 1, np.int32)
    np.testing.assert_array_equal(spread(np.ones(dot.group, np.uint8), acc, ones), want)


@pytest.mark.parametrize("case", EVERY)
def test_lanes_fit_the_expressions(case):
    _, dot = case
    codes, weights = (tirx.Var(n, t) for n, t in (("c", f"uint8x{dot.group}"), ("w", f"int8x{dot.lanes * dot.group}")))
    acc = tirx.Var("acc", f"int32x{dot.lanes}")
    assert str(dot.accumulate(acc, dot.spread(codes), dot.widen(weights)).ty) == f"int32x{dot.lanes}"


@pytest.mark.parametrize("row", FLOAT_ROWS, ids=lambda row: row.name)
def test_bfloat16(row):
    """The row's instruction where it has one, float32 products elsewhere; as wide as they come."""
    if not can_run(row):
        pytest.skip(f"this CPU cannot run {row.name}")
    rng, dots = np.random.default_rng(0), row.dots_of("bfloat16")
    assert {dot.needs for dot in dots} == ({"avx512_bf16"} if row.has("avx512_bf16") else {""})
    assert [dot.lanes for dot in dots] == [dot.lanes for dot in row.dots]
    for dot in dots:

        def body(x, acc, weight, y, dot=dot):
            operand = dot.spread(b.load(x, 0, dot.group))
            weights = dot.widen(b.load(weight, 0, dot.lanes * dot.group))
            b.store(y, 0, dot.accumulate(b.load(acc, 0, dot.lanes), operand, weights), dot.lanes)

        size = dot.lanes * dot.group
        buffers = [("x", "uint16", dot.group), ("acc", "float32", dot.lanes), ("weight", "uint16", size)]
        function = b.kernel("main", [*buffers, ("y", "float32", dot.lanes)], body, dot.llvm)
        call = tvm.compile(IRModule({"main": function.with_attr("global_symbol", "main")}), row.tvm_target())["main"]
        x, weight = (to_bits(rng.standard_normal(shape)) for shape in (dot.group, (dot.lanes, dot.group)))
        acc, y = rng.standard_normal(dot.lanes, np.float32), tvm.runtime.empty((dot.lanes,), "float32")
        call(*(tvm.runtime.tensor(np.ascontiguousarray(a).reshape(-1)) for a in (x, acc, weight)), y)
        np.testing.assert_allclose(y.numpy(), dot.reference(acc, x, weight), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_has_narrower_dot_products_for_few_channels(row):
    assert row.dot.lanes == row.lanes == row.dots[0].lanes
    lanes = [dot.lanes for dot in row.dots]
    assert lanes == sorted(lanes, reverse=True) and len({dot.group for dot in row.dots}) == 1
    assert [row.dot_for(channels, "uint8").lanes for channels in (1, 4, 5, 8, 64)] == [4, 4, 8, 8, row.lanes]


def test_rounding_to_bfloat16_is_one_instruction():
    """As the oracle rounds, ties and NaN too, but for numbers below 2^-126."""
    row = FLOAT_ROWS[0]
    if not can_run(row):
        pytest.skip(f"this CPU cannot run {row.name}")
    for dot in row.dots_of("bfloat16"):
        if dot.narrow is None:
            continue

        def body(x, y, dot=dot):
            b.store(y, 0, dot.narrow(b.load(x, 0, dot.lanes)), dot.lanes)

        function = b.kernel("main", [("x", "float32", dot.lanes), ("y", "uint16", dot.lanes)], body, dot.llvm)
        call = tvm.compile(IRModule({"main": function.with_attr("global_symbol", "main")}), row.tvm_target())["main"]
        x = np.random.default_rng(0).standard_normal(dot.lanes).astype(np.float32)
        x[:7] = [1 + 2**-8, 1 + 3 * 2**-8, np.inf, -np.inf, -0.0, 3.4e38, np.nan]
        y = tvm.runtime.empty((dot.lanes,), "uint16")
        call(tvm.runtime.tensor(x), y)
        np.testing.assert_array_equal(from_bits(y.numpy()), rounded(x))
