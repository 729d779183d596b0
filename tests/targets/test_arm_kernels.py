"""What ARM kernels do that others do not: whole channel blocks at once, parts of registers, codes that saturate."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from tvm.ir import IRModule

from qcompile.compile import compile_module
from qcompile.ops import Affine, Lookup
from qcompile.passes.store_activations import stored_spec
from qcompile.reference import arithmetic
from qcompile.reference.convolution import conv2d as oracle
from qcompile.targets.arm import ROWS
from qcompile.targets.kernels import builder as b
from qcompile.targets.kernels.conv import Constants, conv2d
from qcompile.targets.kernels.depthwise import Strip, depthwise_conv2d
from qcompile.targets.kernels.elementwise import lookup
from qcompile.targets.kernels.quantize import quantize
from qcompile.targets.kernels.tiling import Tile
from qcompile.targets.storage import Storage
from tests.emulation import run_kernel
from tests.targets.running import check_border, codes, poisoned
from tests.targets.weighted import FLOAT, INTEGER, constants_of, conv

each_row = pytest.mark.parametrize("target", ROWS, ids=lambda row: row.name)


def check(
    build, shape, weight, target, epilogue="codes", tile=None, strides=(1, 1), dilation=(1, 1), groups=1, smallest=-128
):
    """A convolution of random codes, padded, against the oracle; borders of the result are compared as well.

    smallest: of the weights.
    """
    rng = np.random.default_rng(0)
    pads = tuple(k // 2 * d for k, d in zip(weight[2:], dilation, strict=True)) * 2
    spec = conv(INTEGER[epilogue], padding=pads, groups=groups, strides=strides, dilation=dilation)
    spec = stored_spec(spec, "int8")
    constants = constants_of(spec, weight, rng)
    constants = replace(constants, weight=np.maximum(constants.weight, smallest).astype(np.int8))
    x = Storage(shape, "int8", 16, pads, spec.x.zero_point)
    size = [(shape[i + 2] + 2 * pads[i] - (weight[i + 2] - 1) * dilation[i] - 1) // strides[i] + 1 for i in range(2)]
    out_shape = (shape[0], weight[0], *size)
    out = Storage(out_shape, "int8" if spec.epilogue.out else "float32", 16)
    residual = Storage(out_shape, "int8", 16) if spec.epilogue.residual else None
    kernel = build(spec, constants, x, out, residual, target, tile)
    data = codes(rng, shape, "int8")
    more = [codes(rng, out_shape, "int8")] if residual else []
    arrays = [x.store(data), *kernel.constants, *(residual.store(a) for a in more)]
    got = out.view(run_kernel(kernel.function, arrays, (out.numel, out.dtype), target))
    want = oracle(spec, data, constants.weight, constants.bias, constants.multiplier, *more)
    np.testing.assert_array_equal(got, want)


DEPTHWISE = {
    "3x3": (40, (3, 3), {}),
    "3x3/2, residual": (16, (3, 3), {"strides": (2, 2), "epilogue": "residual", "tile": Strip(3)}),
    "5x5": (17, (5, 5), {"tile": Strip(5)}),
    "dilated, floats out": (33, (7, 3), {"strides": (1, 2), "dilation": (2, 2), "epilogue": "floats out"}),
    "1x4": (48, (1, 4), {"strides": (2, 1), "epilogue": "residual", "tile": Strip(1)}),
}


@pytest.mark.parametrize("target", ROWS[1:], ids=lambda row: row.name)
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_blocks(name, target):
    channels, window, options = DEPTHWISE[name]
    check(depthwise_conv2d, (2, channels, 9, 11), (channels, 1, *window), target, groups=channels, **options)


CONV = {
    "blocks": ((1, 32, 5, 7), (32, 32, 3, 3), {"tile": Tile(1, 5, 4), "epilogue": "residual"}),
    "tiles that begin inside blocks": ((1, 16, 5, 7), (96, 16, 1, 1), {"tile": Tile(2, 2, 3)}),
    "few steps, odd channels": ((2, 23, 4, 5), (37, 23, 3, 2), {}),
    "halves of blocks": ((1, 16, 5, 6), (32, 16, 3, 3), {"tile": Tile(1, 4, 2), "epilogue": "residual"}),
    "pixels of two rows": ((1, 16, 5, 5), (16, 16, 3, 3), {"tile": Tile(2, 3, 4), "epilogue": "residual"}),
    "strided": ((1, 16, 9, 9), (16, 16, 3, 3), {"tile": Tile(1, 4, 4), "strides": (2, 2)}),
    "no loop of the reduction": ((2, 64, 3, 6), (16, 64, 1, 1), {"tile": Tile(1, 4, 4), "epilogue": "residual"}),
    "no loop, odd channels": ((1, 40, 5, 5), (23, 40, 1, 1), {"epilogue": "floats out, residual"}),
    "rest of a block": ((1, 24, 3, 4), (44, 24, 1, 1), {"tile": Tile(1, 3, 4), "epilogue": "floats out, residual"}),
}


@each_row
@pytest.mark.parametrize("name", CONV)
def test_convolutions(name, target):
    shape, weight, options = CONV[name]
    check(conv2d, shape, weight, target, **options)


@pytest.mark.parametrize("name", ["blocks", "few steps, odd channels", "no loop, odd channels"])
def test_convolutions_without_the_smallest_weight(name):
    """Two products are added before they are widened (smlal)."""
    shape, weight, options = CONV[name]
    check(conv2d, shape, weight, ROWS[2], smallest=-127, **options)


@pytest.mark.parametrize("name", ["3x3", "5x5", "1x4"])
def test_depthwise_without_the_smallest_weight(name):
    channels, window, options = DEPTHWISE[name]
    options = {"smallest": -127, "groups": channels, **options}
    check(depthwise_conv2d, (2, channels, 9, 11), (channels, 1, *window), ROWS[2], **options)


@pytest.mark.parametrize("weight", [-127, -128])
def test_two_products_are_added_only_where_they_fit(weight):
    """All codes and weights the smallest: 2 * 128 * 127 fits int16, twice 128 * 128 does not."""
    target, spec = ROWS[2], stored_spec(conv(INTEGER["floats out"]), "int8")
    x, out = Storage((1, 16, 1, 1), "int8", 16), Storage((1, 16, 1, 1), "float32", 16)
    ones = np.ones(16)
    constants = Constants(
        np.full((16, 16, 1, 1), weight, np.int8), ones.astype(np.int32), ones.astype(np.float32) / 1000
    )
    kernel = conv2d(spec, constants, x, out, None, target)
    data = np.full(x.shape, -128, np.int8)
    got = out.view(run_kernel(kernel.function, [x.store(data), *kernel.constants], (16, "float32"), target))
    want = oracle(spec, data, constants.weight, constants.bias, constants.multiplier)
    np.testing.assert_array_equal(got, want)
    module = compile_module(IRModule({"main": kernel.function.with_attr("global_symbol", "main")}), target)
    assert ("smlal" in module.mod.inspect_source("asm")) == (weight > -128)


FLOATS = {
    "few channels": ((1, 3, 7, 9), 3, (20, 3, 3, 3)),
    "blocks": ((1, 32, 5, 7), 16, (32, 32, 3, 3)),
    "rest of a block": ((1, 22, 5, 7), 16, (9, 22, 1, 1)),
}


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_multiplied_by_elements(name):
    """Four of a pixel are loaded at once; of those behind the last, and in padding channels, nothing gets through."""
    shape, block, weight = FLOATS[name]
    rng = np.random.default_rng(0)
    pad = weight[2] // 2
    spec = conv(FLOAT["float"], integer=False, padding=(pad,) * 4)
    constants = constants_of(spec, weight, rng)
    x, out = Storage(shape, "float32", block, (pad,) * 4), Storage((1, weight[0], *shape[2:]), "float32", 16)
    data = rng.standard_normal(shape, np.float32)
    kernel = conv2d(spec, constants, x, out, None, ROWS[1])
    got = out.view(run_kernel(kernel.function, [poisoned(x, data), *kernel.constants], (out.numel, "float32"), ROWS[1]))
    want = oracle(spec, data, constants.weight, constants.bias)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    module = compile_module(IRModule({"main": kernel.function.with_attr("global_symbol", "main")}), ROWS[1])
    assert re.search(r"\tfmla\tv\d+\.4s, v\d+\.4s, v\d+\.s\[3\]", module.mod.inspect_source("asm"))


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("bounds", [(-128, 127), (-7, 100)])
@pytest.mark.parametrize("zero_point", [0, -128, 127, 5])
def test_saturating_is_clipping(zero_point, bounds, lanes):
    """Ties, both ends of the codes, and what neither int16 nor int32 can hold."""
    target, out = ROWS[1], Affine(1.0, zero_point, "int8")
    edges = np.array([-128.5, -127.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5, 32767, 32768, 1e9, 3e9, np.inf], np.float32)
    values = np.concatenate([edges, -edges, edges - zero_point, np.float32([0.0] * 9)]).astype(np.float32)

    def body(x, y) -> None:
        with b.loop(values.size // lanes) as i:
            b.store(y, i * lanes, target.dot.codes(b.load(x, i * lanes, lanes), out, bounds, lanes), lanes)

    kernel = b.kernel("codes", [("x", "float32", values.size), ("y", "int8", values.size)], body)
    low, high = (float(bound - zero_point) for bound in bounds)
    want = (np.clip(np.rint(values), low, high) + zero_point).astype(np.int8)
    np.testing.assert_array_equal(run_kernel(kernel, [values], (values.size, "int8"), target), want)


@pytest.mark.parametrize("zero_point", [0, -128, 127])
def test_codes_as_steps(zero_point):
    target, x = ROWS[1], Affine(1.0, zero_point, "int8")
    codes = np.arange(-128, 128).astype(np.int8)

    def body(source, y) -> None:
        for start, lanes in ((0, 8), (8, 8), *((i, 16) for i in range(16, 256, 16))):
            b.store(y, start, target.dot.steps(b.load(source, start, lanes), x, lanes), lanes)

    kernel = b.kernel("steps", [("x", "int8", 256), ("y", "float32", 256)], body)
    want = codes.astype(np.float32) - zero_point
    np.testing.assert_array_equal(run_kernel(kernel, [codes], (256, "float32"), target), want)


@pytest.mark.parametrize(("channels", "block"), [(1, 1), (2, 2), (3, 3), (4, 4), (19, 16)])
def test_inputs_become_codes(channels, block):
    """Whole vectors and the rest of a row; what is no number, or too large."""
    q = Affine(0.02, -7, "int8")
    x = np.random.default_rng(0).standard_normal((2, channels, 3, 37)).astype(np.float32)
    x[0, -1, 0, :8] = [np.nan, np.inf, -np.inf, 3e38, -3e38, 655.36, 0.01, -0.03]
    plain, out = Storage(x.shape, "float32"), Storage(x.shape, "int8", block, (1, 2, 0, 1), -7)
    got = run_kernel(quantize(q, plain, out, ROWS[1]), [x.reshape(-1)], (out.numel, "int8"), ROWS[1])
    check_border(got, out)
    np.testing.assert_array_equal(out.view(got), arithmetic.quantize(x, q))


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_tables(dtype):
    """Codes in sixteens by permutation, floats one by one; 50 codes: the last vector overlaps the one before."""
    q = Affine(0.1, 3, "int8")
    table = codes(np.random.default_rng(1), (256,), "int8").astype(dtype)
    x = np.concatenate([np.arange(-128, 128), np.arange(-25, 25)]).astype(np.int8)
    spec = Lookup("f", q, q if dtype == "int8" else None)
    kernel = lookup(spec, Storage((1, x.size), "int8"), Storage((1, x.size), dtype), ROWS[1])
    got = run_kernel(kernel, [x, table], (x.size, dtype), ROWS[1])
    np.testing.assert_array_equal(got, table[x.astype(int) + 128])
