"""Plan and folding on random networks: the result is valid, means the same, and is as integer as it can be."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from qcompile import graph
from qcompile.passes.base import op_name
from qcompile.passes.insert_qdq import insert_qdq
from qcompile.reference.arithmetic import dequantize as decode
from qcompile.reference.arithmetic import quantize as encode
from qcompile.reference.interpreter import run
from tests.passes.float_modules import const, module, names, values, weight
from tests.passes.quantized_modules import assert_bodies_agree, feeds_of, integer_of, kinds, plan_of, specs_of

op = relax.op
C = 4


def conv(groups: int, kernel: int):
    def step(b, x, other, name, seed):
        w = weight(C, C // groups, kernel, kernel, seed=seed)
        y = b.emit(op.nn.conv2d(x, w, padding=kernel // 2, groups=groups), f"{name}~conv")
        return op.add(y, weight(1, C, 1, 1, seed=seed))

    return step


def concat(b, x, other, name, seed):
    both = b.emit(op.concat([x, other], 1), f"{name}~both")
    return op.nn.conv2d(both, weight(C, 2 * C, 1, 1, seed=seed))


def shuffle(b, x, other, name, seed):
    split = b.emit(op.reshape(x, (1, 2, C // 2, 6, 6)), f"{name}~split")
    return op.reshape(b.emit(op.permute_dims(split, (0, 2, 1, 3, 4)), f"{name}~swapped"), (1, C, 6, 6))


def swap_halves(b, x, other, name, seed):
    parts = b.emit(op.split(x, 2, axis=1), f"{name}~parts")
    halves = [b.emit(relax.TupleGetItem(parts, i), f"{name}~{i}") for i in (1, 0)]
    return op.concat(halves, 1)


def gate(b, x, other, name, seed):
    mean = b.emit(op.mean(x, [2, 3], keepdims=True), f"{name}~mean")
    return op.multiply(x, b.emit(op.sigmoid(mean), f"{name}~gate"))


def silu(b, x, other, name, seed):
    return op.multiply(x, b.emit(op.sigmoid(x), f"{name}~sigmoid"))


def island(b, x, other, name, seed):
    return op.nn.layer_norm(x, weight(6, seed=seed), weight(6, seed=seed), axes=[-1])


def cropped(b, x, other, name, seed):
    wide = b.emit(op.nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1)), f"{name}~wide")
    return op.strided_slice(wide, [2, 3], [0, 1], [6, 7])


STEPS = {
    "conv": conv(1, 1),
    "conv3": conv(2, 3),
    "depthwise": conv(C, 3),
    "relu": lambda b, x, other, name, seed: op.nn.relu(x),
    "clip": lambda b, x, other, name, seed: op.clip(x, 0, 1),
    "residual": lambda b, x, other, name, seed: op.add(x, other),
    "product": lambda b, x, other, name, seed: op.multiply(x, other),
    "scale": lambda b, x, other, name, seed: op.multiply(x, const(values(1, C, 1, 1, seed=seed, low=0.5))),
    "shift": lambda b, x, other, name, seed: op.add(x, const(values(1, 1, 6, 6, seed=seed))),
    "half": lambda b, x, other, name, seed: op.multiply(x, const(0.5)),
    "max pool": lambda b, x, other, name, seed: op.nn.max_pool2d(x, (3, 3), padding=(1, 1)),
    "average pool": lambda b, x, other, name, seed: op.nn.avg_pool2d(x, (3, 3), padding=(1, 1)),
    "softmax": lambda b, x, other, name, seed: op.nn.softmax(x, axis=1),
    "concat": concat,
    "shuffle": shuffle,
    "swap halves": swap_halves,
    "gate": gate,
    "silu": silu,
    "island": island,
    "cropped": cropped,
}


@st.composite
def networks(draw):
    """Networks of (1, 4, 6, 6) tensors; every step reads one or two earlier ones. Several outputs."""
    step = st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 9), st.integers(0, 9))
    steps = draw(st.lists(step, min_size=3, max_size=10))
    outputs = draw(st.sets(st.integers(0, 9), max_size=2))

    def write(b, x):
        tensors = [x]
        for i, (kind, first, second) in enumerate(steps):
            one, other = tensors[-1 - first % min(2, len(tensors))], tensors[second % len(tensors)]
            tensors.append(b.emit(STEPS[kind](b, one, other, f"t{i}", i), f"t{i}"))
        return [tensors[i] for i in sorted({1 + o % (len(tensors) - 1) for o in outputs} | {len(tensors) - 1})]

    return module(write, x=(1, C, 6, 6))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(networks())
def test_random_networks(mod):
    plan = plan_of(mod)
    result = integer_of(mod, plan)  # well formed after every pass
    feeds = feeds_of(mod)
    values_of = run(result, feeds, capture=True)
    assert_bodies_agree(result, values_of)
    assert len(set(names(result))) == len(names(result))
    assert "conv2d" not in kinds(result)
    assert all(spec.x is not None for spec in specs_of(result) if spec.op == "conv2d" and spec.groups < C)
    _no_round_trips(result)
    # Folding rounds no more than the QDQ form does, but ties may fall the other way and travel on.
    qdq = run(insert_qdq(plan)(mod), feeds)
    for expected, actual, real in zip(qdq.values(), run(result, feeds).values(), run(mod, feeds).values(), strict=True):
        assert actual.dtype == real.dtype
        assert np.abs(actual - expected).max() <= 0.05 * np.abs(expected).max() + 1e-6


@settings(max_examples=8, deadline=None, derandomize=True)
@given(networks())
def test_codes_in_and_out(mod):
    outputs = [out.name for out in graph.read(mod).outputs]
    plan = plan_of(mod, integer_inputs=["x"], integer_outputs=outputs)
    result = integer_of(mod, plan)
    codes = encode(feeds_of(mod)["x"], plan.tensors["x"].affine)
    expected = run(mod, {"x": decode(codes, plan.tensors["x"].affine)})
    for name, got in zip(outputs, run(result, {"x": codes}).values(), strict=True):
        q, real = plan.tensors[name].affine, expected[name]
        assert got.dtype == np.uint8
        assert np.abs(decode(got, q) - real).max() <= 0.25 * np.abs(real).max() + 1e-6


def _no_round_trips(result):
    """No quantize reads, however moved, what a dequantize made."""
    definitions = graph.read(result).definitions()
    for value in definitions.values():
        if op_name(value) == "quantize":
            assert op_name(definitions.get(value.args[0])) not in ("dequantize", "reshape", "nn.max_pool2d")
