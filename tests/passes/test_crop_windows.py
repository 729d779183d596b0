from __future__ import annotations

import pytest
from tvm import relax

from qcompile.passes.crop_windows import crop_windows
from tests.passes.float_modules import check_same_results, check_unchanged, module, weight

op = relax.op


def network(shape=(1, 4, 14, 14), kernel=(3, 3), **attributes):
    conv = op.nn.conv2d if len(kernel) == 2 else op.nn.conv1d
    return module(lambda b, x: [b.emit(conv(x, weight(6, 4, *kernel), **attributes), "y")], x=shape)


def cropped(mod):
    """Kernel, padding and dilation afterwards."""
    after = crop_windows(mod)
    check_same_results(mod, after)
    conv = after["main"].body.blocks[0].bindings[0].value
    shape = tuple(int(n) for n in conv.args[1].ty.shape)
    return shape[2:], [int(p) for p in conv.attrs.padding], [int(d) for d in conv.attrs.dilation]


@pytest.mark.parametrize(
    ("attributes", "left"),
    [
        ({"dilation": 24, "padding": 24}, ((1, 1), [0, 0, 0, 0], [1, 1])),
        ({"dilation": (12, 14), "padding": (12, 14)}, ((3, 1), [12, 0, 12, 0], [12, 1])),
        ({"kernel": (5, 1), "dilation": (7, 1), "padding": (14, 0)}, ((3, 1), [7, 0, 7, 0], [7, 1])),
        ({"dilation": 9, "padding": (0, 9, 18, 9), "strides": 2}, ((2, 3), [0, 9, 9, 9], [9, 9])),
    ],
)
def test_taps_in_the_padding_go(attributes, left):
    assert cropped(network(**attributes)) == left


def test_sequence():
    assert cropped(network((2, 4, 5), (3,), dilation=6, padding=6)) == ((1,), [0, 0], [1])


def test_a_window_that_sees_the_image_everywhere_stays():
    check_unchanged(crop_windows, network(dilation=12, padding=12))
    check_unchanged(crop_windows, network((1, 4, 2, 2), padding=1))


def test_a_window_that_would_not_start_at_the_edge_stays():
    check_unchanged(crop_windows, network((1, 4, 30, 30), dilation=24, padding=10))
