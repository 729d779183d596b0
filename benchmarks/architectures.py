"""Common architectures as ONNX models with random weights: what the log of common shapes is measured on.

The layer tables are those of the papers. Only shapes matter here, so that weights are noise and batch norms, which
fold into the convolutions, are left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Writer:
    """Adds nodes; a tensor is (name, channels)."""

    def __init__(self, image: int):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)
        self.image = image

    def node(self, op: str, inputs: list[str], **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        values = self.rng.standard_normal(shape, np.float32) / np.sqrt(max(1, np.prod(shape[1:])))
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(
        self, x: tuple[str, int], channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, clip: str = "Relu"
    ) -> tuple[str, int]:
        """Convolution with half padding and a bias, then "Relu", "Clip" (ReLU6) or "" (nothing)."""
        name, inputs = x
        weight, bias = self.weight(channels, inputs // groups, kernel, kernel), self.weight(channels)
        pad = (kernel - 1) // 2
        y = self.node("Conv", [name, weight, bias], strides=[stride] * 2, pads=[pad] * 4, group=groups)
        if clip == "Clip":
            y = self.node("Clip", [y, self.scalar(0.0), self.scalar(6.0)])
        elif clip:
            y = self.node(clip, [y])
        return y, channels

    def scalar(self, value: float) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def add(self, a: tuple[str, int], b: tuple[str, int], relu: bool = False) -> tuple[str, int]:
        y = self.node("Add", [a[0], b[0]])
        return (self.node("Relu", [y]) if relu else y), a[1]

    def model(self, x: tuple[str, int], classes: int = 1000) -> onnx.ModelProto:
        pooled = self.node("Flatten", [self.node("GlobalAveragePool", [x[0]])])
        y = self.node("Gemm", [pooled, self.weight(classes, x[1]), self.weight(classes)], transB=1)
        graph = helper.make_graph(
            self.nodes,
            "architecture",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, self.image, self.image])],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, classes])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def resnet(blocks: tuple[int, ...], bottleneck: bool, image: int = 224) -> onnx.ModelProto:
    """He et al., "Deep residual learning", 2015, table 1; the stride is in the 3x3 convolution."""
    w = _Writer(image)
    x = w.conv(("x", 3), 64, 7, 2)
    x = w.node("MaxPool", [x[0]], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            outputs = width * (4 if bottleneck else 1)
            if bottleneck:
                y = w.conv(w.conv(w.conv(x, width), width, 3, stride), outputs, clip="")
            else:
                y = w.conv(w.conv(x, width, 3, stride), width, 3, clip="")
            x = w.add(y, x if x[1] == outputs and stride == 1 else w.conv(x, outputs, 1, stride, clip=""), relu=True)
    return w.model(x)


def mobilenet_v1(width: float = 1.0, image: int = 224) -> onnx.ModelProto:
    """Howard et al., "MobileNets", 2017, table 1."""
    w = _Writer(image)
    x = w.conv(("x", 3), int(32 * width), 3, 2)
    table = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for channels, stride in table:
        x = w.conv(w.conv(x, x[1], 3, stride, x[1]), int(channels * width))
    return w.model(x)


def mobilenet_v2(width: float = 1.0, image: int = 224) -> onnx.ModelProto:
    """Sandler et al., "MobileNetV2", 2018, table 2."""
    w = _Writer(image)
    x = w.conv(("x", 3), _by_eight(32 * width), 3, 2, clip="Clip")
    for expansion, channels, count, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for block in range(count):
            x = _inverted_residual(w, x, expansion, _by_eight(channels * width), 3, 1 if block else stride)
    return w.model(w.conv(x, _by_eight(1280 * max(width, 1.0)), clip="Clip"))


def efficientnet_lite0(image: int = 224) -> onnx.ModelProto:
    """Tan and Le, "EfficientNet", 2019, table 1, without squeeze and excitation and with ReLU6."""
    w = _Writer(image)
    x = w.conv(("x", 3), 32, 3, 2, clip="Clip")
    for expansion, channels, count, stride, kernel in (
        *((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3)),
        *((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
    ):
        for block in range(count):
            x = _inverted_residual(w, x, expansion, channels, kernel, 1 if block else stride)
    return w.model(w.conv(x, 1280, clip="Clip"))


def _inverted_residual(
    w: _Writer, x: tuple[str, int], expansion: int, channels: int, kernel: int, stride: int
) -> tuple[str, int]:
    inner = x[1] * expansion
    y = w.conv(x, inner, clip="Clip") if expansion > 1 else x
    y = w.conv(w.conv(y, inner, kernel, stride, inner, clip="Clip"), channels, clip="")
    return w.add(y, x) if stride == 1 and x[1] == channels else y


def _by_eight(channels: float) -> int:
    """The nearest multiple of 8, not more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


ARCHITECTURES: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet18": lambda: resnet((2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda: resnet((3, 4, 6, 3), bottleneck=True),
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v1_0.5": lambda: mobilenet_v1(0.5),
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v2_0.5": lambda: mobilenet_v2(0.5),
    "efficientnet_lite0": efficientnet_lite0,
}
