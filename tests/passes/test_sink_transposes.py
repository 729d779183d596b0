from __future__ import annotations

import pytest
from tvm import relax

from qcompile.passes.sink_transposes import sink_transposes
from tests.passes.float_modules import (
    check,
    check_same_results,
    check_unchanged,
    const,
    module,
    names,
    operators,
    values,
    weight,
)

op = relax.op
NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def to(b, x, axes, name):
    return b.emit(op.permute_dims(x, axes), name)


def test_a_pair_around_an_activation():
    def before(b, x):
        y = b.emit(op.nn.relu(to(b, x, NHWC, "t")), "y")
        return [b.emit(op.nn.max_pool2d(to(b, y, NCHW, "u"), (2, 2)), "z")]

    def after(b, x):
        return [b.emit(op.nn.max_pool2d(b.emit(op.nn.relu(x), "y"), (2, 2)), "z")]

    check(sink_transposes, module(before, x=(1, 3, 4, 6)), module(after, x=(1, 3, 4, 6)))


def test_constants_are_turned_instead():
    c = values(3, seed=1)

    def before(b, x):
        y = b.emit(op.add(to(b, x, NHWC, "t"), const(c)), "y")
        return [to(b, y, NCHW, "z")]

    def after(b, x):
        return [b.emit(op.add(x, const(c.reshape(1, 3, 1, 1))), "z")]

    check(sink_transposes, module(before, x=(1, 3, 4, 6)), module(after, x=(1, 3, 4, 6)))


def test_a_residual_block_written_for_nhwc():
    """conv -> NHWC -> bias, relu, + the block's input -> NCHW -> conv: no transpose is left."""

    def before(b, x):
        x = to(b, x, NHWC, "input")
        y = b.emit(op.nn.conv2d(to(b, x, NCHW, "t1"), weight(3, 3, 3, 3), padding=1), "conv1")
        y = b.emit(op.add(to(b, y, NHWC, "t2"), const(values(3))), "biased")
        y = b.emit(op.add(b.emit(op.nn.relu(y), "relu"), x), "sum")
        return [b.emit(op.nn.conv2d(to(b, y, NCHW, "t3"), weight(3, 3, 1, 1)), "conv2")]

    mod = module(before, x=(1, 3, 4, 5))
    result = sink_transposes(mod)
    assert operators(result) == ["conv2d", "add", "relu", "add", "conv2d"]
    assert names(result) == ["conv1", "biased", "relu", "sum", "conv2"]
    check_same_results(mod, result)


def pad(b, t):
    return b.emit(op.nn.pad(t, (0, 0, 1, 2, 0, 0, 0, 3)), "y")


def split(b, t):
    return b.emit(relax.TupleGetItem(b.emit(op.split(t, [1], -1), "parts"), 1), "y")


CARRIED = {
    "concat": lambda b, t: b.emit(op.concat([t, b.emit(op.nn.relu(t), "r")], -1), "y"),
    "pad": pad,
    "softmax": lambda b, t: b.emit(op.nn.softmax(t, -1), "y"),
    "split": split,
    "slice": lambda b, t: b.emit(op.strided_slice(t, [3, 1], [0, 1], [2, 4], [1, 2]), "y"),
    "mean": lambda b, t: b.emit(op.mean(t, [1, 2], True), "y"),
    "sum": lambda b, t: b.emit(op.sum(t, [-1], True), "y"),
    "leakyrelu": lambda b, t: b.emit(op.nn.leakyrelu(t, 0.1), "y"),
    "clip": lambda b, t: b.emit(op.clip(t, 0.0, 1.0), "y"),
    "constant first": lambda b, t: b.emit(op.divide(const(values(4, 1, 3, low=1, high=2)), t), "y"),
    "equal operands": lambda b, t: b.emit(op.multiply(t, b.emit(op.sigmoid(t), "s")), "y"),
}


@pytest.mark.parametrize("name", CARRIED)
def test_carried_past(name):
    mod = module(lambda b, x: [to(b, CARRIED[name](b, to(b, x, NHWC, "t")), NCHW, "z")], x=(2, 3, 4, 5))
    result = sink_transposes(mod)
    assert "permute_dims" not in operators(result)
    check_same_results(mod, result)


def test_a_reduction_that_drops_axes_leaves_none_to_turn():
    def write(b, x):
        return [b.emit(op.mean(b.emit(op.nn.relu(to(b, x, NHWC, "t")), "r"), [1, 2]), "y")]

    mod = module(write, x=(2, 3, 4, 5))
    result = sink_transposes(mod)
    assert operators(result) == ["relu", "mean"]
    check_same_results(mod, result)


def test_a_reduction_that_drops_axes_may_leave_some_to_turn():
    def write(b, x):
        y = b.emit(op.max(to(b, x, NHWC, "t"), [1]), "y")  # (N, W, C)
        return [to(b, y, (0, 2, 1), "z")]

    mod = module(write, x=(2, 3, 4, 5))
    result = sink_transposes(mod)
    assert operators(result) == ["max"] and names(result) == ["z"]
    check_same_results(mod, result)


def test_an_output_in_between_is_turned_for_itself():
    def write(b, x):
        y = b.emit(op.nn.relu(to(b, x, NHWC, "t")), "y")
        z = b.emit(op.sigmoid(to(b, y, NCHW, "u")), "z")
        return [z, b.emit(op.nn.max_pool2d(z, (2, 2)), "p"), b.emit(op.mean(y, [1, 2]), "m"), y]

    mod = module(write, x=(1, 3, 4, 6))
    result = sink_transposes(mod)
    assert operators(result).count("permute_dims") == 1
    assert {"y", "y~stored"} <= set(names(result))
    check_same_results(mod, result)


def test_an_input_that_comes_back_stays_an_output_of_its_own():
    mod = module(lambda b, x: [to(b, to(b, x, NHWC, "t"), NCHW, "y"), b.emit(op.nn.relu(x), "z")], x=(1, 3, 4, 6))
    result = sink_transposes(mod)
    check_same_results(mod, result)


UNCHANGED = {
    "nothing to meet": lambda b, x: [b.emit(op.nn.relu(to(b, x, NHWC, "t")), "y")],
    "twice the work": lambda b, x: [
        b.emit(op.nn.relu(t := to(b, x, NHWC, "t")), "y"),
        b.emit(op.sigmoid(t), "z"),
    ],
    "operands in different orders": lambda b, x: [
        b.emit(op.add(to(b, x, (0, 1, 3, 2), "t"), b.emit(op.nn.relu(x), "r")), "y")
    ],
    "channel shuffle": lambda b, x: [
        b.emit(
            op.reshape(
                to(b, b.emit(op.reshape(x, (1, 2, 2, 4, 4)), "a"), (0, 2, 1, 3, 4), "t"),
                (1, 4, 4, 4),
            ),
            "y",
        )
    ],
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_left(name):
    check_unchanged(sink_transposes, module(UNCHANGED[name], x=(1, 4, 4, 4)))


def test_one_group_gains_though_another_does_not():
    def write(b, x):
        y = b.emit(op.sigmoid(to(b, b.emit(op.nn.relu(to(b, x, NHWC, "t")), "r"), NCHW, "u")), "y")
        t = to(b, x, (0, 1, 3, 2), "v")
        return [y, b.emit(op.nn.relu(t), "w"), b.emit(op.tanh(t), "z")]

    mod = module(write, x=(1, 3, 4, 6))
    result = sink_transposes(mod)
    assert operators(result).count("permute_dims") == 1
    check_same_results(mod, result)
