from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm_ffi
from hypothesis import HealthCheck, given, settings
from tvm import relax

from qcompile import graph, ops
from qcompile.compile import runnable
from qcompile.ops import Affine, Epilogue
from qcompile.passes.base import dtype_of, op_name
from qcompile.passes.quantized import affine_of, dequantize, quantize
from qcompile.passes.store_activations import StoreActivations, stored_spec
from qcompile.plan import QuantPlan
from qcompile.reference.interpreter import run
from qcompile.targets.select import select_target
from tests.passes.float_modules import module, weight
from tests.passes.quantized_modules import feeds_of, integer_of, kinds, plan_of, specs_of
from tests.properties import graphs
from tests.properties.graphs import composite

op = relax.op
X86 = select_target("x86-vnni")
SIGNED = replace(X86, activation="int8")
Q, R, U = Affine(2**-6, -20, "int8"), Affine(3 * 2**-7, 12, "int8"), Affine(2**-6, 99, "uint8")
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def changed(before, target=X86):
    """The module after the pass, which must compute the same."""
    after = StoreActivations(target)(before)
    relax.analysis.well_formed(after)
    feeds = {
        p.name: np.random.default_rng(0).integers(-128, 128, [int(e) for e in p.ty.shape]).astype(dtype_of(p))
        if dtype_of(p) != "float32"
        else np.random.default_rng(0).uniform(-3, 5, [int(e) for e in p.ty.shape]).astype(np.float32)
        for p in graph.read(before).params
    }
    expected, actual = run(before, feeds), run(after, feeds)
    for want, got in zip(expected.values(), actual.values(), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    return after


def on_codes(step, shape=(2, 3, 4, 4), q=Q):
    """quantize to int8, one step, dequantize."""

    def write(b, x):
        y = step(b, b.emit(quantize(x, q), "x.q"))
        return [b.emit(dequantize(y, q), "y")]

    return module(write, x=shape)


def types(mod):
    return [dtype_of(v) for v, _ in graph.read(mod).bindings if isinstance(v.ty, relax.TensorType)]


MOVES = {
    "max_pool": lambda b, x: b.emit(op.nn.max_pool2d(x, (2, 2), padding=(1, 1)), "m"),
    "reshape": lambda b, x: b.emit(op.reshape(x, (2, 48)), "m"),
    "transpose": lambda b, x: b.emit(op.permute_dims(x, [0, 2, 3, 1]), "m"),
    "slice": lambda b, x: b.emit(op.strided_slice(x, [2], [3], [0], [-2]), "m"),
    "zero point around": lambda b, x: b.emit(op.nn.pad(x, [0, 0, 0, 0, 1, 2, 0, 1], "constant", Q.zero_point), "m"),
    "mirrored": lambda b, x: b.emit(op.nn.pad(x, [0, 0, 0, 0, 1, 2, 0, 1], "reflect"), "m"),
    "clip": lambda b, x: b.emit(op.clip(x, -20, 100), "m"),
    "relu": lambda b, x: b.emit(op.nn.relu(x), "m"),
    "nearest": lambda b, x: b.emit(op.image.resize2d(x, (7, 5), layout="NCHW", method="nearest_neighbor"), "m"),
    "flip": lambda b, x: b.emit(op.flip(x, 2), "m"),
    "tile": lambda b, x: b.emit(op.tile(x, (1, 1, 2, 1)), "m"),
    "broadcast_to": lambda b, x: b.emit(op.broadcast_to(x, (3, 2, 3, 4, 4)), "m"),
    "max": lambda b, x: b.emit(op.max(x, [2, 3]), "m"),
    "take": lambda b, x: b.emit(op.take(x, relax.const(np.array([2, 0], np.int64)), 1), "m"),
    "concat": lambda b, x: b.emit(op.concat([x, x], 1), "m"),
    "split": lambda b, x: b.emit(relax.TupleGetItem(b.emit(op.split(x, [1], 1), "parts"), 1), "m"),
    "with a constant": lambda b, x: b.emit(
        op.concat([relax.const(np.arange(-24, 24, dtype=np.int8).reshape(2, 3, 4, 2)), x], 3), "m"
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_operators_that_move_codes(name):
    before = on_codes(MOVES[name])
    after = changed(before)
    assert set(types(after)) == {"uint8", "float32"}
    want = ["clip" if name == "relu" and kind == "relu" else kind for kind in kinds(before)]
    assert kinds(after) == want
    codings = [affine_of(value) for _, value in graph.read(after).bindings if "quantize" in op_name(value)]
    assert codings == [Affine(Q.scale, Q.zero_point + 128)] * 2


def layer(spec, *constants, shape=(2, 3, 4, 4), out_shape=None):
    """quantize, a composite of codes, dequantize."""
    out_type = relax.TensorType(out_shape or shape, "int8")

    def step(b, x):
        args = [x, *(x if c is None else relax.const(c) for c in constants)]
        return b.call(composite(spec, [a.ty for a in args], out_type), args, "y.q", spec.op)

    return on_codes(step, shape)


WEIGHT, BIAS, FACTOR = np.full((3, 3, 1, 1), -7, np.int8), np.arange(3, dtype=np.int32), np.full(3, 0.03, np.float32)
SQUARE = np.full((4, 4), -7, np.int8), np.arange(4, dtype=np.int32), np.full(4, 0.03, np.float32)
HALF = np.array([0, 0.5], np.float32)
PAIR = np.array([[0, 1], [1, 2], [2, 3], [3, 3]], np.int32), np.full((4, 2), 1024, np.int32)
UNIT = (1, 1), (0, 0, 0, 0)
OUT = Epilogue(out=Q, clip=(0.0, 1.0))
LAYERS = {
    "conv2d": layer(ops.Conv2d(*UNIT, (1, 1), 1, Q, OUT), WEIGHT, BIAS, FACTOR),
    "residual": layer(ops.Conv2d(*UNIT, (1, 1), 1, Q, replace(OUT, residual=Q)), WEIGHT, BIAS, FACTOR, None),
    "conv_transpose2d": layer(ops.ConvTranspose2d(*UNIT, (0, 0), (1, 1), 1, Q, OUT), WEIGHT, BIAS, FACTOR),
    "dense": layer(ops.Dense(Q, OUT), *SQUARE),
    "binary": layer(ops.Binary("multiply", Q, Q, OUT), None),
    "constant operand": layer(ops.Binary("subtract", Q, R, OUT), np.full((1, 3, 1, 1), -99, np.int8)),
    "lookup": layer(ops.Lookup("f", Q, Q), np.arange(-128, 128).astype(np.int8)[::-1]),
    "requantize": layer(ops.Requantize(Q, R)),
    "avg_pool2d": layer(ops.AvgPool2d((1, 1), *UNIT, (1, 1), False, False, Q, OUT), HALF),
    "mean": layer(ops.Mean((2,), True, Q, OUT), out_shape=(2, 3, 1, 4)),
    "concat": layer(ops.Concat(1, (Q, R), Q), np.full((2, 1, 4, 4), -3, np.int8), out_shape=(2, 4, 4, 4)),
    "resize_linear": layer(ops.ResizeLinear(Q, OUT), *PAIR, *PAIR),
    "softmax": layer(ops.Softmax(1, Q, OUT), np.arange(256, 0, -1, dtype=np.int32)),
    "channel_shuffle": layer(ops.ChannelShuffle(3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    before = LAYERS[name]
    after = changed(before)
    assert kinds(after) == kinds(before)
    assert set(types(after)) == {"uint8", "float32"}
    spec = specs_of(after)[0]
    assert spec == stored_spec(specs_of(before)[0], "uint8") and '"dtype": "int8"' not in ops.to_json(spec)
    call = graph.read(after).bindings[1][1]
    kept = [dtype_of(arg) == "int8" for arg in call.args]
    assert kept == [name in ("conv2d", "residual", "conv_transpose2d", "dense") and i == 1 for i in range(len(kept))]


def test_every_affine_of_a_spec_is_shifted():
    spec = ops.Conv2d(*UNIT, (1, 1), 1, Q, Epilogue(R, (0.0, 6.0), U))
    shifted = Affine(Q.scale, 108), Affine(R.scale, 140)
    assert stored_spec(spec, "uint8") == ops.Conv2d(*UNIT, (1, 1), 1, shifted[0], Epilogue(shifted[1], (0.0, 6.0), U))
    assert stored_spec(spec, "uint8", keeps_out=True).epilogue.out == R
    assert stored_spec(ops.Concat(1, (Q, U), R), "uint8") == ops.Concat(1, (shifted[0], U), shifted[1])


def network(b, x):
    c = b.emit(op.nn.relu(b.emit(op.nn.conv2d(x, weight(6, 3, 3, 3)), "linear")), "c")
    d = b.emit(op.nn.conv2d(c, weight(6, 6, 1, 1)), "d")
    s = b.emit(op.sigmoid(b.emit(op.add(d, c), "s")), "g")
    m = b.emit(op.mean(b.emit(op.multiply(s, c), "p"), [2, 3]), "m")
    return [b.emit(op.matmul(m, weight(6, 4)), "y")]


def signed_plan(mod, **options) -> QuantPlan:
    """The same codes, less 128."""
    plan = plan_of(mod, **options)
    tensors = {
        name: replace(t, dtype="int8", zero_point=tuple(z - 128 for z in t.zero_point)) if t.dtype == "uint8" else t
        for name, t in plan.tensors.items()
    }
    return replace(plan, tensors=tensors)


def test_a_plan_of_int8_is_that_of_uint8():
    mod = module(network, x=(1, 3, 8, 8))
    signed, plain = integer_of(mod, signed_plan(mod)), integer_of(mod)
    after = StoreActivations(X86)(signed)
    assert specs_of(after) == specs_of(plain)
    assert kinds(after) == kinds(plain) and types(after) == types(plain)
    for want, got in zip(run(plain, feeds_of(mod)).values(), run(after, feeds_of(mod)).values(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_inputs_and_outputs_keep_their_type():
    mod = module(network, x=(1, 3, 8, 8))
    before = integer_of(mod, signed_plan(mod, integer_inputs=["x"], integer_outputs=["y"]))
    after = changed(before)
    assert kinds(after) == ["REQUANTIZE", *kinds(before)]
    assert specs_of(after)[0] == ops.Requantize(Affine(1.0, 0, "int8"), Affine(1.0, 128))
    assert types(after)[-1] == "int8"  # written by the last layer
    assert set(types(after)[:-1]) == {"uint8"}


def test_an_output_that_others_read_is_shifted_back():
    def write(b, x):
        codes = b.emit(quantize(x, Q), "x.q")
        return [b.emit(op.nn.max_pool2d(codes, (2, 2)), "y"), codes]

    after = changed(module(write, x=(1, 3, 4, 4)))
    assert kinds(after) == ["quantize", "max_pool2d", "REQUANTIZE", "REQUANTIZE"]
    assert [o.name for o in graph.read(after).outputs] == ["y~int8", "x.q~int8"]


def test_who_computes_with_numbers_reads_int8():
    def write(b, x):
        codes = b.emit(quantize(x, Q), "x.q")
        number = b.emit(op.astype(codes, "int32"), "number")
        return [b.emit(dequantize(codes, Q), "y"), number]

    after = changed(module(write, x=(2, 3)))
    assert kinds(after) == ["quantize", "REQUANTIZE", "astype", "dequantize"]


def test_codes_by_channel_stay():
    scales, zeros = relax.const(np.array([0.1, 0.2, 0.3], np.float32)), relax.const(np.zeros(3, np.int8))

    def write(b, x):
        codes = b.emit(op.quantize(x, scales, zeros, 1, "int8"), "x.q")
        return [b.emit(op.dequantize(codes, scales, zeros, 1), "y")]

    before = module(write, x=(2, 3))
    assert tvm_ffi.structural_equal(changed(before), before)


@pytest.mark.parametrize("before", [*LAYERS.values(), *map(on_codes, MOVES.values())], ids=[*LAYERS, *MOVES])
def test_there_and_back_again(before):
    """The mirror image: a target whose dot products read int8 gets the specs and types that the int8 module had."""
    back = changed(changed(before), SIGNED)
    assert specs_of(back) == specs_of(before) and types(back) == types(before)


@pytest.mark.parametrize(("target", "q"), [(SIGNED, Q), (X86, U)], ids=["int8", "uint8"])
def test_codes_that_are_stored_so_stay(target, q):
    after = changed(on_codes(MOVES["max_pool"], q=q), target)
    assert [affine_of(value) for _, value in graph.read(after).bindings if "quantize" in op_name(value)] == [q, q]


@pytest.mark.parametrize("target", [X86, SIGNED], ids=["uint8", "int8"])
@FEW
@given(graphs.integer_graphs(dtypes=("uint8", "int8")))
def test_random_graphs_compute_the_same(target, drawn):
    after = StoreActivations(target)(drawn.module)
    relax.analysis.well_formed(after)
    for want, got in zip(run(drawn.module, drawn.feeds).values(), run(after, drawn.feeds).values(), strict=True):
        assert got.dtype == want.dtype and np.array_equal(got, want)


@settings(FEW, max_examples=10)
@given(graphs.integer_graphs(dtypes=("int8", "uint8")))
def test_compiled_random_graphs_equal_the_oracle(drawn):
    got = runnable(drawn.module, select_target("x86"))(drawn.feeds)
    for name, want in run(drawn.module, drawn.feeds).items():
        assert got[name].dtype == want.dtype and np.array_equal(got[name], want), name


def test_compiled_int8_images_equal_the_oracle():
    """Of few channels, between int8 inputs and outputs."""
    mod = module(network, x=(1, 3, 8, 8))
    before = integer_of(mod, signed_plan(mod, integer_inputs=["x"], integer_outputs=["y"]))
    x = np.random.default_rng(0).integers(-128, 128, (1, 3, 8, 8)).astype(np.int8)
    got = runnable(before, select_target("x86"))({"x": x})
    for name, want in run(before, {"x": x}).items():
        np.testing.assert_array_equal(got[name], want)
