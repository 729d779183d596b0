from __future__ import annotations

import logging

import numpy as np
import pytest
from tvm import relax

from qcompile import graph
from qcompile.errors import QCompileError
from qcompile.passes.base import original_errors
from qcompile.passes.chain import find_chains
from qcompile.passes.equalize_channels import equalize_channels, factors, find_groups
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


def concatenated(b, x):
    y = b.emit(op.nn.relu(biased(b, x, "a")), "y")
    p = b.emit(op.nn.avg_pool2d(conv(b, x, "u", channels=2, seed=2)), "p")
    return [conv(b, b.emit(op.concat([y, p, y], axis=1), "c"), "z")]


def shuffled(b, x):
    y = b.emit(op.nn.relu(biased(b, x, "a")), "y")
    split = b.emit(op.reshape(y, (1, 2, 2, 6, 6)), "split")
    s = b.emit(op.reshape(b.emit(op.permute_dims(split, [0, 2, 1, 3, 4]), "swapped"), SHAPE), "s")
    even = b.emit(op.strided_slice(s, [1], [0], [4], [2]), "even")
    return [conv(b, even, "z"), conv(b, s, "w")]


def halves(b, x):
    y = b.emit(op.nn.relu(biased(b, x, "a")), "y")
    parts = b.emit(op.split(y, 2, axis=1), "parts")
    first, second = (b.emit(relax.TupleGetItem(parts, i), f"part{i}") for i in (0, 1))
    return [conv(b, first, "z"), b.emit(op.sigmoid(second), "s")]


def flattened(b, x):
    y = b.emit(op.nn.relu(biased(b, x, "a")), "y")
    m = b.emit(op.mean(y, [2, 3]), "m")
    flat = b.emit(op.reshape(y, (1, 144)), "flat")
    return [b.emit(op.matmul(m, weight(4, 3)), "z"), b.emit(op.matmul(flat, weight(144, 3)), "w")]


def values_of_attention(b, x, w):
    v = b.emit(op.matmul(x, weight(6, 4)), "v")
    heads = b.emit(op.permute_dims(b.emit(op.reshape(v, (2, 3, 2, 2)), "r"), [0, 2, 1, 3]), "heads")
    c = b.emit(op.permute_dims(b.emit(op.matmul(w, heads), "c"), [0, 2, 1, 3]), "t")
    return [b.emit(op.matmul(b.emit(op.reshape(c, (2, 3, 4)), "joined"), weight(4, 5)), "z")]


def post_norm(b, x):
    gamma, beta = const(values(6, low=0.5, high=2)), const(values(6))
    y = b.emit(op.nn.layer_norm(x, gamma, beta, axes=[-1]), "y")
    return [b.emit(op.add(b.emit(op.matmul(y, weight(6, 6)), "z~"), y), "z")]


def group_names(write, **inputs) -> list[list[str]]:
    found = find_groups(graph.read(module(write, **(inputs or {"x": SHAPE}))))
    return [[tensor.name for tensor in group.index] for group in found]


def test_which_tensors_share_their_scales():
    assert group_names(relu_chain) == [["y"]]
    assert group_names(residual) == [["t", "s"], ["g"]]
    assert group_names(pooled) == [["y", "p"]]
    assert group_names(normed, x=(2, 3, 6)) == [["y"]]
    assert group_names(transposed) == [["y"]]
    assert group_names(concatenated) == [["y", "u", "p", "c"]]
    assert group_names(shuffled) == [["y", "split", "swapped", "s", "even"]]
    assert group_names(halves) == [["y", "part0"]]
    assert group_names(flattened) == [["y", "m", "flat"]]
    assert group_names(values_of_attention, **ATTENTION) == [["v", "r", "heads", "c", "t", "joined"]]
    assert group_names(post_norm, x=(2, 3, 6)) == [["y"]]


def test_which_channels_share_a_number():
    (group,) = find_groups(graph.read(module(shuffled, x=SHAPE)))
    found = {var.name: group.by_channel(var, 1).tolist() for var in group.index if var.name in ("y", "s", "even")}
    assert found == {"y": [0, 1, 2, 3], "s": [0, 2, 1, 3], "even": [0, 1]}
    (group,) = find_groups(graph.read(module(halves, x=SHAPE)))
    found = {var.name: group.by_channel(var, 1).tolist() for var in group.index}
    assert found == {"y": [0, 1, -1, -1], "part0": [0, 1]}


ROWS = {"x": (2, 3, 6)}
ATTENTION = {"x": (2, 3, 6), "w": (2, 2, 3, 3)}
CASES = {
    **dict.fromkeys(
        (relu_chain, residual, pooled, transposed, concatenated, shuffled, halves, flattened), {"x": SHAPE}
    ),
    **dict.fromkeys((normed, post_norm), ROWS),
    values_of_attention: ATTENTION,
}


@pytest.mark.parametrize("write", CASES)
def test_the_float_meaning_stays(write):
    mod = module(write, **CASES[write])
    random = np.random.default_rng(0)
    scales = {g.name: tuple(2.0 ** random.uniform(-5, 5, g.count)) for g in find_groups(graph.read(mod))}
    after = equalize_channels(scales)(mod)
    names = [v.name for v, _ in graph.read(after).bindings]
    assert [name for name in names if not name.endswith(".scaled")] == [v.name for v, _ in graph.read(mod).bindings]
    before, after = run_all([shown(mod), shown(after)], *inputs_of(mod))
    times = factors(graph.read(mod), scales)
    for name, got, want in zip(names_shown(mod), after, before, strict=True):
        want = want * times[name][1] if name in times else want
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def shown(mod):
    """Every tensor of a module, the model's outputs last."""
    main = graph.read(mod)
    builder = graph.MainBuilder(main.params, mod)
    new = {}
    for var, value in main.bindings:
        new[var] = builder.emit(graph.substitute(value, new), var.name)
    return builder.module([new[v] for v in new if v.name in names_shown(mod)])


def names_shown(mod):
    """Between layers: what a layer keeps to itself goes by no name."""
    main = graph.read(mod)
    inner = {var for chain in find_chains(main) for var in chain.members[:-1]}
    tensors = [v for v, _ in main.bindings if v not in inner and isinstance(v.ty, relax.TensorType)]
    return [v.name for v in tensors if not v.name.endswith(".scaled")]


def test_channels_are_multiplied():
    mod = module(relu_chain, x=SHAPE)

    scale = (1.0, 2.0, 4.0, 0.5)
    before, after = run_all([shown(mod), shown(equalize_channels({"y": scale})(mod))], *inputs_of(mod))
    np.testing.assert_allclose(after[0], before[0] * np.reshape(scale, (1, 4, 1, 1)), rtol=1e-6)


def test_a_tensor_that_others_read_is_multiplied_for_the_layers_alone():
    mod = module(post_norm, **ROWS)
    (group,) = find_groups(graph.read(mod))
    assert (group.name, group.count) == ("y.scaled", 6)
    after = graph.read(equalize_channels({"y.scaled": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)})(mod))
    reads = {var.name: [v.name for v in graph.reads(value)] for var, value in after.bindings}
    assert reads == {"y": ["x"], "y.scaled": ["y"], "z~": ["y.scaled"], "z": ["z~", "y"]}


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


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (clipped, "y: bounded to 0 ... 6"),
        (read_by_sigmoid, "y: part of a function"),
        (added_to_an_input, "s: a model input"),
        (an_output, "y: a model output"),
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
