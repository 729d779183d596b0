"""Convolutions and pooling against ONNX Runtime."""

import numpy as np
import pytest

from tests.frontend.onnx_models import check, model, node, operators, weights

CONVS = {
    "plain": ((2, 3, 7, 9), (5, 3, 3, 3), {}),
    "asymmetric pads": ((1, 3, 7, 9), (5, 3, 3, 2), {"pads": [0, 1, 2, 0]}),
    "strides, dilation": ((1, 3, 11, 12), (4, 3, 3, 3), {"strides": [2, 3], "dilations": [2, 1], "pads": [1, 1, 1, 1]}),
    "groups": ((1, 6, 5, 5), (4, 3, 3, 3), {"group": 2}),
    "depthwise": ((2, 5, 6, 6), (5, 1, 3, 3), {"group": 5, "pads": [1, 1, 1, 1]}),
    "depthwise times two": ((1, 3, 6, 6), (6, 1, 3, 3), {"group": 3}),
    "1x1 image": ((1, 7, 1, 1), (3, 7, 1, 1), {}),
    "1x1 image, padded": ((1, 2, 1, 1), (3, 2, 3, 3), {"pads": [1, 1, 1, 1]}),
    "same upper": ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "valid": ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "VALID"}),
    "1-D": ((2, 3, 17), (4, 3, 5), {"pads": [2, 1], "strides": [2]}),
    "1-D depthwise": ((1, 4, 17), (4, 1, 3), {"group": 4, "dilations": [2]}),
}
VOLUMES = {
    "plain": ((1, 2, 4, 5, 6), (3, 2, 2, 2, 3), {"pads": [0, 1, 1, 1, 0, 0]}),
    "padded slices": ((2, 3, 4, 5, 6), (4, 3, 3, 3, 3), {"pads": [1, 1, 0, 2, 1, 0]}),
    "strides, dilation": ((1, 2, 9, 8, 7), (3, 2, 3, 3, 2), {"strides": [2, 1, 2], "dilations": [2, 2, 1]}),
    "groups": ((1, 6, 4, 4, 4), (4, 3, 2, 3, 3), {"group": 2}),
    "depthwise": ((1, 4, 4, 4, 4), (4, 1, 3, 3, 3), {"group": 4, "pads": [1, 1, 1, 1, 1, 1]}),
    "one slice": ((2, 3, 4, 5, 6), (4, 3, 1, 3, 3), {"strides": [2, 1, 1]}),
    "one pixel": ((2, 3, 6, 5, 4), (4, 3, 3, 1, 1), {"strides": [2, 1, 1], "pads": [1, 0, 0, 1, 0, 0]}),
    "one strided pixel": ((1, 3, 6, 5, 4), (4, 3, 2, 1, 1), {"strides": [1, 2, 2]}),
}


@pytest.mark.parametrize("case", CONVS)
def test_conv(case):
    shape, kernel, attributes = CONVS[case]
    constants = {"w": weights(*kernel), "b": weights(kernel[0], seed=1)}
    proto = model([node("Conv", "x w b", **attributes)], {"x": shape}, constants=constants)
    imported = check(proto)
    assert operators(imported) == [f"conv{len(kernel) - 2}d", "add"]


@pytest.mark.parametrize("case", VOLUMES)
def test_volumes_are_convolved_as_images(case):
    shape, kernel, attributes = VOLUMES[case]
    constants = {"w": weights(*kernel), "b": weights(kernel[0], seed=1)}
    imported = check(model([node("Conv", "x w b", **attributes)], {"x": shape}, constants=constants))
    assert "conv2d" in operators(imported)


def test_volume_with_computed_weight():
    proto = model([node("Conv", "x w")], {"x": (1, 2, 4, 4, 4), "w": (3, 2, 3, 3, 3)})
    assert operators(check(proto)) == ["conv3d"]


def test_conv_with_computed_weight_and_bias():
    proto = model([node("Conv", "x w b")], {"x": (1, 2, 4, 4), "w": (3, 2, 3, 3), "b": (3,)})
    assert operators(check(proto)) == ["conv2d", "reshape", "add"]


TRANSPOSED = {
    "plain": ((1, 3, 4, 5), (3, 4, 3, 3), {"strides": [2, 2]}),
    "pads, output_padding": (
        (1, 3, 4, 5),
        (3, 4, 3, 3),
        {"strides": [2, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 0]},
    ),
    "output_shape": ((1, 2, 4, 4), (2, 3, 3, 3), {"strides": [2, 2], "output_shape": [8, 8]}),
    "output_shape, same upper": (
        (1, 2, 4, 4),
        (2, 3, 3, 3),
        {"strides": [2, 2], "output_shape": [8, 8], "auto_pad": "SAME_UPPER"},
    ),
    "same lower": ((1, 2, 4, 4), (2, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "groups": ((1, 4, 3, 3), (4, 2, 2, 2), {"group": 2}),
    "dilation": ((1, 2, 4, 4), (2, 3, 3, 3), {"dilations": [2, 1]}),
    "1-D": ((1, 2, 5), (2, 3, 3), {"strides": [2], "pads": [1, 0]}),
}


@pytest.mark.parametrize("case", TRANSPOSED)
def test_conv_transpose(case):
    shape, kernel, attributes = TRANSPOSED[case]
    constants = {"w": weights(*kernel), "b": weights(kernel[1] * attributes.get("group", 1), seed=1)}
    check(model([node("ConvTranspose", "x w b", **attributes)], {"x": shape}, constants=constants))


POOLS = {
    "plain": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "pads": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    "ceil": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "ceil, pads": {"kernel_shape": [3, 2], "strides": [3, 3], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    "same": {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
}


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "AveragePool with padding"])
def test_pool(op, case):
    include = {"count_include_pad": 1} if " " in op else {}
    proto = model([node(op.split()[0], "x", **POOLS[case], **include)], {"x": (2, 3, 8, 11)}, opset=19)
    check(proto)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_dilated_and_1d_pool(op):
    nodes = [
        node(op, "x", "a", kernel_shape=[2, 3], dilations=[2, 2]),
        node("Reshape", "x s", "r"),
        node(op, "r", "b", kernel_shape=[3], strides=[2], pads=[1, 1]),
    ]
    proto = model(nodes, {"x": (1, 2, 6, 9)}, ["a", "b"], {"s": np.array([1, 2, 54])}, opset=19)
    check(proto)


def test_ceil_mode_is_gone():
    proto = model([node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], {"x": (1, 1, 6, 6)})
    pool = check(proto).module["main"].body.blocks[0].bindings[0].value
    assert not pool.attrs.ceil_mode and list(pool.attrs.padding) == [0, 0, 1, 1]
