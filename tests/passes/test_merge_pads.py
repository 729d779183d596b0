from __future__ import annotations

import pytest
from tvm import relax

from qcompile.passes.merge_pads import merge_pads
from tests.passes.float_modules import check, check_same_results, check_unchanged, module, operators, weight

op = relax.op
SHAPE = (2, 4, 5, 6)
WIDTH = (0, 0, 0, 0, 1, 2, 0, 3)  # top 1, bottom 2, right 3


def padded(layer, width=WIDTH, **pad):
    return module(lambda b, x: [b.emit(layer(b.emit(op.nn.pad(x, width, **pad), "padded")), "y")], x=SHAPE)


def test_convolution():
    def conv(x, padding):
        return op.nn.conv2d(x, weight(6, 2, 3, 3), strides=2, padding=padding, groups=2, dilation=(1, 2))

    after = module(lambda b, x: [b.emit(conv(x, (2, 1, 3, 4)), "y")], x=SHAPE)
    check(merge_pads, padded(lambda x: conv(x, 1)), after)


def test_sequence():
    def write(b, x):
        return [
            b.emit(op.nn.conv1d(b.emit(op.nn.pad(x, (0, 0, 0, 0, 2, 1)), "p"), weight(3, 4, 3), padding=(0, 1)), "y")
        ]

    def after(b, x):
        return [b.emit(op.nn.conv1d(x, weight(3, 4, 3), padding=(2, 2)), "y")]

    check(merge_pads, module(write, x=(2, 4, 7)), module(after, x=(2, 4, 7)))


@pytest.mark.parametrize("own, counts", [(0, False), (0, True), (1, True)])
def test_average_pool_counts_the_padding(own, counts):
    mod = padded(lambda x: op.nn.avg_pool2d(x, (3, 3), strides=(2, 2), padding=own, count_include_pad=counts))
    result = merge_pads(mod)
    assert operators(result) == ["avg_pool2d"]
    check_same_results(mod, result)


def test_the_pad_stays_for_its_other_reader():
    def write(b, x):
        p = b.emit(op.nn.pad(x, WIDTH), "p")
        return [b.emit(op.nn.conv2d(p, weight(3, 4, 3, 3)), "y"), b.emit(op.nn.relu(p), "z")]

    mod = module(write, x=SHAPE)
    result = merge_pads(mod)
    assert operators(result) == ["pad", "conv2d", "relu"]
    check_same_results(mod, result)


def conv(x):
    return op.nn.conv2d(x, weight(3, 4, 3, 3))


REFUSALS = {
    "the pad is not by zero": padded(conv, pad_value=1.0),
    "the pad is not of spatial axes only": padded(conv, (0, 1, 0, 0, 1, 1, 1, 1)),
    "the pad is not by zero, but mirrored": padded(conv, pad_mode="reflect"),
    "the pool does not count its own padding": padded(lambda x: op.nn.avg_pool2d(x, (3, 3), padding=1)),
    "the pool's last window may reach beyond the padding": padded(
        lambda x: op.nn.avg_pool2d(x, (3, 3), strides=(2, 2), ceil_mode=True)
    ),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals(reason, caplog):
    with caplog.at_level("DEBUG", "qcompile.passes"):
        check_unchanged(merge_pads, REFUSALS[reason])
    assert f"y: {reason.partition(',')[0]}" in caplog.text


def test_max_pool_is_left():
    check_unchanged(merge_pads, padded(lambda x: op.nn.max_pool2d(x, (3, 3))))
