"""All tidy passes in order: on random networks and, marked ``bench``, on real ones against ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from qcompile import graph
from qcompile.graph import MainBuilder
from qcompile.passes.base import array, op_name
from qcompile.passes.float_form import TIDY
from tests.passes.float_modules import check_same_results, const, module, names, operators, run, values, weight

op = relax.op
BENCH = Path(os.environ.get("QCOMPILE_BENCH", Path(__file__).parents[3] / "shared" / "bench"))


def tidy(mod):
    for step in TIDY:
        mod = step(mod)
    return mod


def test_a_small_network_exported_for_nhwc():
    """pad, conv, batch norm, relu6 on NHWC tensors, global pooling, dense: what is left is what is computed."""

    def write(b, x):
        x = b.emit(op.permute_dims(x, (0, 3, 1, 2)), "in_nchw")
        x = b.emit(op.nn.pad(x, (0, 0, 0, 0, 0, 1, 0, 1)), "padded")
        x = b.emit(op.nn.conv2d(x, weight(8, 3, 3, 3), strides=2), "conv")
        x = b.emit(op.permute_dims(x, (0, 2, 3, 1)), "conv_nhwc")
        statistics = [const(values(8, seed=s, low=1, high=2)) for s in range(4)]
        norm = b.emit(op.nn.batch_norm(x, *statistics, axis=3, training=False), "norm")
        x = b.emit(relax.TupleGetItem(norm, 0), "bn")
        x = b.emit(op.minimum(b.emit(op.nn.relu(x), "relu"), const(6.0)), "relu6")
        x = b.emit(op.mean(x, [1, 2]), "pooled")
        x = b.emit(op.matmul(x, b.emit(op.permute_dims(weight(4, 8)), "w")), "product")
        return [b.emit(op.nn.softmax(b.emit(op.add(const(values(1, 4)), x), "logits")), "y")]

    mod = module(write, x=(2, 8, 8, 3))
    result = tidy(mod)
    assert operators(result) == ["permute_dims", "conv2d", "add", "clip", "mean", "reshape", "matmul", "add", "softmax"]
    assert names(result) == ["in_nchw", "conv", "bn", "relu6", "pooled~mean", "pooled", "product", "logits", "y"]
    check_same_results(mod, result)


CHANNELS = 4


@st.composite
def networks(draw):
    """A network of (2, 4, H, W) tensors; every step reads one or two earlier ones. Several outputs."""
    step = st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 99), st.integers(0, 99))
    steps = draw(st.lists(step, min_size=2, max_size=9))
    outputs = draw(st.sets(st.integers(0, 99), max_size=2))

    def write(b, x):
        tensors = [x]
        for i, (kind, first, second) in enumerate(steps):
            seed = 10 * i
            made = STEPS[kind](b, tensors[-1 - first % min(2, len(tensors))], tensors[second % len(tensors)], i, seed)
            tensors.append(b.emit(made, f"t{i}"))
        chosen = {1 + o % (len(tensors) - 1) for o in outputs} | {len(tensors) - 1}
        return [tensors[i] for i in sorted(chosen)]

    return module(write, x=(2, CHANNELS, 3, 4))


def per_channel(seed: int):
    return const(values(1, CHANNELS, 1, 1, seed=seed, low=0.5, high=1.5))


def around_transposes(inner):
    def step(b: MainBuilder, x, other, i, seed):
        t = b.emit(op.permute_dims(x, (0, 2, 3, 1)), f"t{i}.nhwc")
        return op.permute_dims(b.emit(inner(t, const(values(CHANNELS, seed=seed))), f"t{i}.inner"), (0, 3, 1, 2))

    return step


def batch_norm(b, x, other, i, seed):
    arrays = (const(values(CHANNELS, seed=seed + k, low=0.5, high=1.5)) for k in range(4))
    return relax.TupleGetItem(b.emit(op.nn.batch_norm(x, *arrays, axis=1, training=False), f"t{i}.norm"), 0)


def conv(groups: int, kernel: int):
    def step(b, x, other, i, seed):
        w = weight(CHANNELS, CHANNELS // groups, kernel, kernel, seed=seed)
        return op.nn.conv2d(x, w, padding=kernel // 2, groups=groups)

    return step


STEPS = {
    "conv": conv(1, 1),
    "conv3": conv(2, 3),
    "depthwise": conv(CHANNELS, 3),
    "transposed": lambda b, x, other, i, seed: op.nn.conv2d_transpose(
        x, weight(CHANNELS, CHANNELS, 3, 3, seed=seed), padding=(1, 1)
    ),
    "batch norm": batch_norm,
    "scale": lambda b, x, other, i, seed: op.multiply(x, per_channel(seed)),
    "shift": lambda b, x, other, i, seed: op.add(per_channel(seed), x),
    "minus": lambda b, x, other, i, seed: op.subtract(x, const(0.5)),
    "over": lambda b, x, other, i, seed: op.divide(x, per_channel(seed)),
    "relu": lambda b, x, other, i, seed: op.nn.relu(x),
    "min": lambda b, x, other, i, seed: op.minimum(x, const(1.0)),
    "residual": lambda b, x, other, i, seed: op.add(x, other),
    "nothing": lambda b, x, other, i, seed: op.reshape(x, (2, CHANNELS, 3, 4)),
    "nhwc relu": around_transposes(lambda t, c: op.nn.relu(t)),
    "nhwc scale": around_transposes(lambda t, c: op.multiply(t, c)),
}


@settings(max_examples=10, deadline=None, derandomize=True)
@given(networks())
def test_random_networks_mean_the_same(mod):
    result = tidy(mod)
    assert not {"batch_norm", "subtract", "minimum"} & set(operators(result))
    assert not _foldable(result)
    check_same_results(mod, result)


def _foldable(mod) -> list[str]:
    """Scales by a constant that stand directly behind a convolution which nothing else reads."""
    main = graph.read(mod)
    users, made = main.users(), main.definitions()
    convolutions = {var for var, value in main.bindings if "conv" in op_name(value) and var not in main.outputs}
    return [
        var.name
        for var, value in made.items()
        if op_name(value) == "multiply" and array(value.args[1]) is not None
        if value.args[0] in convolutions and len(users[value.args[0]]) == 1
    ]


def _sample(samples, spec) -> np.ndarray:
    """One input of a real model; noise where the file holds compressed images."""
    noise = np.random.default_rng(0).integers(0, 256, spec.shape)
    stored = samples[spec.name][:1] if spec.name in samples else noise
    if f"{spec.name}__scale" in samples:
        stored = stored * samples[f"{spec.name}__scale"] + samples[f"{spec.name}__bias"]
    return np.ascontiguousarray(stored.reshape(spec.shape), dtype=spec.dtype)


@pytest.mark.bench
@pytest.mark.parametrize("model", sorted(p.parent.name for p in BENCH.glob("*/model.onnx")))
def test_real_models_agree_with_onnxruntime(model):
    import onnxruntime

    from qcompile.errors import QCompileError
    from qcompile.frontend.onnx_import import import_onnx

    path = BENCH / model / "model.onnx"
    try:
        imported = import_onnx(path)
    except QCompileError as error:
        pytest.skip(str(error))
    result = tidy(imported.module)
    assert not {"batch_norm", "pad", "squeeze", "expand_dims"} & set(operators(result))
    samples = np.load(BENCH / model / "eval.npz")
    feeds = {i.name: _sample(samples, i) for i in imported.inputs}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for expected, actual in zip(session.run(None, feeds), run(result, *feeds.values()), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5 * max(1.0, np.abs(expected).max()))
