from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.passes.base import original_errors
from qcompile.passes.equalize_channels import equalize_channels, find_groups
from tests.passes.float_modules import const, inputs_of, module, run_all, values, weight

op = relax.op
SHAPE = (1, 4, 6, 6)


def conv(b, x, name, channels=4, groups=1, kernel=1, seed=0):
    w = weight(channels, int(x.ty.shape[1]) // groups, kernel, kernel, seed=seed)
    return b.emit(op.nn.conv2d(x, w, padding=kernel // 2, groups=groups), name)


def biased(b, x, name, **options):
    y = conv(b, x, f"{name}~", **options)
    return b.emit(op.add(y, weight(1, int(y.ty.shape[1]), 1, 1, seed=5)), name)


def relu_chain(b, x):
    y = b.emit(op.nn.relu(biased(b, x, "a")), "y")
    return [conv(b, y, "z", channels=4, groups=4, kernel=3)]


def residual(b, x):
    t = biased(b, x, "t")
    u = conv(b, b.emit(op.nn.relu(conv(b, t, "h", channels=6)), "g"), "u", seed=2)
    return [conv(b, b.emit(op.add(u, t), "s"), "z", channels=2)]


def pooled(b, x):
    y = b.emit(op.nn.relu(biased(b, x, "a")), "y")
    return [conv(b, b.emit(op.nn.max_pool2d(y, (2, 2), (2, 2)), "p"), "z")]


def normed(b, x):
    gamma, beta = const(values(6, low=0.5, high=2)), const(values(6))
    y = b.emit(op.nn.layer_norm(x, gamma, beta, axes=[-1]), "y")
    return [b.emit(op.matmul(y, weight(6, 3)), "q"), b.emit(op.matmul(y, weight(6, 5)), "k")]


def transposed(b, x):
    y = b.emit(op.nn.relu(conv(b, x, "a")), "y")
    return [b.emit(op.nn.conv2d_transpose(y, weight(4, 3, 2, 2), strides=2), "z")]


def group_names(write, **inputs) -> list[list[str]]:
    found = find_groups(graph.read(module(write, **(inputs or {"x": SHAPE}))))
    return [[tensor.name for tensor in group.tensors] for group in found]


def test_which_tensors_share_their_scales():
    assert group_names(relu_chain) == [["y"]]
    assert group_names(residual) == [["t", "s"], ["g"]]
    assert group_names(pooled) == [["y", "p"]]
    assert group_names(normed, x=(2, 3, 6)) == [["y"]]
    assert group_names(transposed) == [["y"]]


@settings(max_examples=20, deadline=None)
@given(which=st.sampled_from([relu_chain, residual, pooled, normed, transposed]), seed=st.integers(0, 2**16))
def test_the_float_meaning_stays(which, seed):
    mod = module(which, x=(2, 3, 6) if which is normed else SHAPE)
    random = np.random.default_rng(seed)
    scales = {g.name: tuple(2.0 ** random.uniform(-5, 5, g.channels)) for g in find_groups(graph.read(mod))}
    after = equalize_channels(scales)(mod)
    assert [v.name for v, _ in graph.read(after).bindings] == [v.name for v, _ in graph.read(mod).bindings]
    for got, want in zip(*reversed(run_all([mod, after], *inputs_of(mod))), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_channels_are_multiplied():
    mod = module(relu_chain, x=SHAPE)

    def shown(m):
        main = graph.read(m)
        builder = graph.MainBuilder(main.params, m)
        new = {}
        for var, value in main.bindings:
            new[var] = builder.emit(graph.substitute(value, new), var.name)
        return builder.module([new[v] for v in new if v.name == "y"])

    scale = (1.0, 2.0, 4.0, 0.5)
    before, after = run_all([shown(mod), shown(equalize_channels({"y": scale})(mod))], *inputs_of(mod))
    np.testing.assert_allclose(after[0], before[0] * np.reshape(scale, (1, 4, 1, 1)), rtol=1e-6)


def clipped(b, x):
    y = b.emit(op.clip(biased(b, x, "a"), 0, 6), "y")
    return [conv(b, y, "z")]


def read_by_sigmoid(b, x):
    y = b.emit(op.nn.relu(biased(b, x, "a")), "y")
    return [conv(b, y, "z"), b.emit(op.sigmoid(y), "s")]


def added_to_an_input(b, x):
    return [conv(b, b.emit(op.add(conv(b, x, "a"), x), "s"), "z")]


def an_output(b, x):
    y = b.emit(op.nn.relu(biased(b, x, "a")), "y")
    return [conv(b, y, "z"), y]


def concatenated(b, x):
    y = b.emit(op.nn.relu(biased(b, x, "a")), "y")
    return [conv(b, b.emit(op.concat([y, y], axis=1), "c"), "z")]


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (clipped, "y: bounded to 0 ... 6 (y)"),
        (read_by_sigmoid, "y: part of a function (y)"),
        (added_to_an_input, "x: a model input (x)"),
        (an_output, "y: a model output (y)"),
        (concatenated, "c: part of a concat (c)"),
    ],
)
def test_what_stays_as_it_is(write, reason, caplog):
    with caplog.at_level(logging.DEBUG, "qcompile.passes"):
        assert group_names(write) == []
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"q": (1.0,)}, "q: its channels cannot be scaled"),
        ({"y": (1.0, 2.0)}, "y: 2 numbers do not scale its channels; give 4 positive numbers"),
        ({"y": (1.0, 2.0, 0.0, 1.0)}, "4 numbers do not scale its channels"),
    ],
)
def test_scales_that_do_not_fit(scales, message):
    mod = module(relu_chain, x=SHAPE)
    with pytest.raises(QCompileError, match=message.replace("(", r"\(")), original_errors():
        equalize_channels(scales)(mod)
