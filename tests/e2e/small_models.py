"""Little ONNX models with something odd about each of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.frontend.onnx_models import model, node, weights

I64, F16, F64 = np.int64, np.float16, np.float64
IMAGE = {"x": (1, 8, 9, 9)}


def w(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights that keep the variance of what they multiply."""
    return weights(*shape, seed=seed) / np.sqrt(max(1, np.prod(shape[1:])), dtype=np.float32)


def conv(out: str, x: str, weight: str, **attributes: object) -> onnx.NodeProto:
    return node("Conv", f"{x} {weight}", out, **attributes)


def one(op: str, inputs: str = "x", shape: tuple[int, ...] = (1, 8, 9, 9), **attributes: object) -> onnx.ModelProto:
    """One operator."""
    return model([node(op, inputs, **attributes)], {"x": shape})


def around(nodes: list[onnx.NodeProto], constants=None, channels: int = 8, **kwargs) -> onnx.ModelProto:
    """conv -> nodes from "c" to "d" -> 1x1 conv, so that what lies between is on codes."""
    before, after = conv("c", "x", "wa", pads=[1, 1, 1, 1]), conv("y", "d", "wb")
    fixed = {"wa": w(8, 8, 3, 3, seed=1), "wb": w(4, channels, 1, 1, seed=2)}
    return model([before, *nodes, after], kwargs.pop("inputs", IMAGE), constants=fixed | (constants or {}), **kwargs)


def convolution(shape: tuple[int, ...], weight: tuple[int, ...], op: str = "Conv", **attributes) -> onnx.ModelProto:
    outputs = weight[1] * attributes.get("group", 1) if op == "ConvTranspose" else weight[0]
    nodes = [node(op, "x w b", "c", **attributes), node("Relu", "c")]
    return model(nodes, {"x": shape}, constants={"w": w(*weight), "b": weights(outputs, seed=3)})


def two_layers(tail: list[onnx.NodeProto], outputs=("y",), **kwargs) -> onnx.ModelProto:
    nodes = [conv("c", "x", "wa", pads=[1, 1, 1, 1]), conv("d", "c", "wb"), *tail]
    constants = {"wa": w(8, 8, 3, 3), "wb": w(8, 8, 1, 1, seed=1)}
    return model(nodes, IMAGE, outputs, constants=constants | kwargs.pop("constants", {}), **kwargs)


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "only relu": lambda: one("Relu"),
    "only softmax": lambda: one("Softmax", shape=(2, 10)),
    "only reshape": lambda: model([node("Reshape", "x s")], IMAGE, constants={"s": np.array([8, -1])}),
    "input is output": lambda: model([node("Identity", "x")], {"x": (2, 3)}),
    "constant output": lambda: model(
        [node("Relu", "x"), node("Mul", "k k", "z")], {"x": (2, 3)}, ["y", "z"], constants={"k": weights(2, 2)}
    ),
    "one pixel": lambda: convolution((1, 8, 1, 1), (6, 8, 1, 1)),
    "one pixel, large window": lambda: convolution((1, 8, 1, 1), (6, 8, 3, 3), pads=[1, 1, 1, 1]),
    **{f"{c} channels": lambda c=c: convolution((1, c, 7, 9), (5, c, 3, 3), pads=[1, 0, 1, 0]) for c in (1, 2, 3, 4)},
    "depthwise, multiplier 2": lambda: convolution((1, 6, 9, 9), (12, 1, 3, 3), group=6, pads=[1, 1, 1, 1]),
    "groups of 3 channels": lambda: convolution((1, 12, 9, 9), (8, 3, 3, 3), group=4),
    "groups of 24 channels": lambda: convolution((1, 48, 5, 5), (40, 24, 3, 3), group=2, pads=[1, 1, 1, 1]),
    "dilation": lambda: convolution((1, 8, 9, 9), (8, 8, 3, 3), dilations=[2, 3], pads=[2, 3, 2, 3]),
    "uneven strides and pads": lambda: convolution((1, 8, 9, 7), (8, 8, 3, 2), strides=[2, 3], pads=[0, 1, 2, 0]),
    "auto_pad": lambda: convolution((1, 8, 9, 9), (8, 8, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    "transposed": lambda: convolution((1, 8, 5, 5), (8, 6, 3, 3), "ConvTranspose", strides=[2, 2]),
    "transposed, groups": lambda: convolution(
        (1, 8, 5, 5), (8, 3, 4, 4), "ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1], group=2
    ),
    "transposed, output padding": lambda: convolution(
        (1, 8, 5, 5), (8, 6, 3, 3), "ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    ),
    "sequence": lambda: convolution((1, 8, 20), (6, 8, 5), strides=[2], pads=[2, 2]),
    "sequence, depthwise": lambda: convolution((2, 8, 20), (8, 1, 3), group=8, pads=[2, 0]),
    "batch of 3": lambda: convolution((3, 8, 9, 9), (6, 8, 3, 3)),
    "any batch": lambda: convolution(("N", 8, 9, 9), (6, 8, 3, 3)),
    "max pool, ceil": lambda: around(
        [node("MaxPool", "c", "d", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[0, 1, 1, 0])]
    ),
    "average pool, uneven pads": lambda: around(
        [node("AveragePool", "c", "d", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 0, 1])]
    ),
    "average pool, counting pads": lambda: around(
        [node("AveragePool", "c", "d", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)]
    ),
    "global max pool": lambda: around([node("GlobalMaxPool", "c", "d")]),
    "mean of rows": lambda: around([node("ReduceMean", "c", "d", axes=[2], keepdims=1)]),
    "mean of channels": lambda: around([node("ReduceMean", "c", "d", axes=[1], keepdims=1)], channels=1),
    "mean of all": lambda: two_layers([node("Relu", "d", "r"), node("ReduceMean", "r", "y", keepdims=0)]),
    "concat of odd channels": lambda: around(
        [conv("e", "c", "v"), node("Concat", "e c", "d", axis=1)], {"v": w(5, 8, 1, 1)}, 13
    ),
    "concat with itself": lambda: around([node("Concat", "c c", "d", axis=1)], channels=16),
    "concat with a constant": lambda: around([node("Concat", "c k", "d", axis=1)], {"k": weights(1, 3, 9, 9)}, 11),
    "split": lambda: around(
        [node("Split", "c s", "e f", axis=1), node("Concat", "f e", "d", axis=1)], {"s": np.array([3, 5])}
    ),
    "slice with steps": lambda: around(
        [node("Slice", "c b e a s", "d")],
        {"b": np.array([7, 0]), "e": np.array([0, 9]), "a": np.array([2, 3]), "s": np.array([-2, 3])},
    ),
    "mirrored border": lambda: around(
        [node("Pad", "c p", "d", mode="reflect")], {"p": np.array([0, 0, 2, 1, 0, 0, 0, 3])}
    ),
    "border of zeros": lambda: around([node("Pad", "c p", "d")], {"p": np.array([0, 0, 2, 1, 0, 0, 0, 3])}),
    "border of threes": lambda: around(
        [node("Pad", "c p v", "d")], {"p": np.array([0, 0, 2, 1, 0, 0, 0, 3]), "v": np.float32(3)}
    ),
    **{
        f"resize, {mode}, {scale}": lambda mode=mode, scale=scale: around(
            [node("Resize", "c _ s", "d", mode=mode)], {"s": np.array([1, 1, 2, scale], np.float32)}
        )
        for mode, scale in (("linear", 2), ("linear", 1.5), ("nearest", 3), ("nearest", 1.5), ("cubic", 2))
    },
    "softmax inside": lambda: around([node("Softmax", "c", "d", axis=1)]),
    "transposes inside": lambda: around([node("Transpose", "c", "d", perm=[0, 1, 3, 2])]),
    "embedding": lambda: model(
        [node("Gather", "table i", "e"), node("MatMul", "e v")],
        {"i": (2, 5)},
        constants={"table": weights(12, 16), "v": w(16, 4)},
        dtypes={"i": I64},
    ),
    "mask": lambda: model(
        [
            node("MatMul", "x v", "m"),
            node("Equal", "i two", "e"),
            node("Where", "e zero m", "h"),
            node("MatMul", "h u"),
        ],
        {"x": (40, 16), "i": (40, 1)},
        constants={"two": np.array(2), "zero": np.float32(0), "v": w(16, 8), "u": w(8, 3)},
        dtypes={"i": I64},
    ),
    "scatters": lambda: model(
        [
            node("ScatterElements", "x i u", "e", axis=1, reduction="add"),
            node("ScatterND", "e n v", "s"),
            node("Relu", "s"),
        ],
        {"x": (3, 5), "u": (2, 5)},
        constants={"i": np.array([[0, -1, 2, 1, 1]] * 2), "n": np.array([[2], [-2]]), "v": weights(2, 5)},
        opset=18,
    ),
    "recurrent layers": lambda: model(
        [
            node("GRU", "x w r b", "g", hidden_size=12, direction="bidirectional"),
            node("Transpose", "g", "t", perm=[0, 2, 1, 3]),
            node("Reshape", "t s", "f"),
            node("LSTM", "f v q", "_ y", hidden_size=8),
        ],
        {"x": (7, 1, 16)},
        constants={
            "w": weights(2, 36, 16) / 4,
            "r": weights(2, 36, 12, seed=1) / 4,
            "b": weights(2, 72, seed=2),
            "s": np.array([7, 1, 24]),
            "v": weights(1, 32, 24, seed=3) / 4,
            "q": weights(1, 32, 8, seed=4) / 4,
        },
    ),
    "residual of two convolutions": lambda: two_layers(
        [conv("e", "c", "v"), node("Add", "d e", "s"), node("Relu", "s", "y")], constants={"v": w(8, 8, 1, 1, seed=5)}
    ),
    "read twice, and output": lambda: two_layers([node("Add", "c d", "y"), conv("z", "c", "wb")], ("y", "z", "c")),
    "one more than a block of channels": lambda: convolution((1, 17, 7, 7), (17, 1, 5, 5), group=17, pads=[2, 2, 2, 2]),
    "large window": lambda: convolution((1, 3, 31, 31), (8, 3, 11, 11), strides=[4, 4], pads=[2, 2, 2, 2]),
    "strides beyond the window": lambda: convolution((1, 8, 11, 11), (8, 8, 2, 2), strides=[4, 5], pads=[0, 1, 1, 0]),
    "volume": lambda: convolution((1, 2, 5, 5, 5), (3, 2, 3, 3, 3)),
    "transposed sequence": lambda: convolution((1, 8, 9), (8, 4, 3), "ConvTranspose", strides=[2]),
    "shared weights": lambda: model([conv("c", "x", "v"), conv("y", "c", "v")], IMAGE, constants={"v": w(8, 8, 1, 1)}),
    "weights of zero": lambda: model(
        [conv("c", "x", "v"), node("Relu", "c")], IMAGE, constants={"v": np.zeros((8, 8, 1, 1), np.float32)}
    ),
    "bias far above the products": lambda: model(
        [node("Conv", "x v b")], IMAGE, constants={"v": 1e-4 * w(8, 8, 1, 1), "b": np.arange(8, dtype=np.float32)}
    ),
    "names that differ in signs": lambda: model(
        [conv("x_y", "x:0", "w"), conv("x.y", "x_y", "w"), conv("x/y", "x.y", "w")],
        {"x:0": (1, 8, 5, 5)},
        ["x_y", "x.y", "x/y"],
        constants={"w": w(8, 8, 1, 1)},
    ),
    "flattened after a transpose": lambda: model(
        [
            conv("c", "x", "v"),
            node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
            node("Reshape", "t s", "f"),
            node("Gemm", "f u b"),
        ],
        IMAGE,
        constants={"v": w(8, 8, 3, 3), "u": w(392, 5), "b": w(5), "s": np.array([1, -1])},
    ),
    "bytes in": lambda: model(
        [node("Cast", "x", "f", to=1), node("Mul", "f k", "g"), conv("y", "g", "v")],
        {"x": (1, 3, 9, 9)},
        constants={"k": np.float32(1 / 255), "v": w(8, 3, 3, 3)},
        dtypes={"x": np.uint8},
    ),
    "number": lambda: model([node("ReduceMax", "x", "m", keepdims=0), node("Div", "x m")], {"x": (3, 4)}),
    "number in": lambda: model([node("Mul", "x k")], {"x": (3, 4), "k": ()}),
    "two inputs": lambda: model(
        [conv("c", "x", "v"), conv("d", "z", "v"), node("Mul", "c d")],
        {"x": (1, 8, 5, 5), "z": (1, 8, 5, 5)},
        constants={"v": w(8, 8, 1, 1)},
    ),
    "unused input": lambda: model([node("Relu", "x")], {"x": (2, 3), "z": (1,)}),
    "integers passed through": lambda: model(
        [node("Relu", "x"), node("Identity", "i", "j")],
        {"x": (2, 3), "i": (4,)},
        ["y", "j"],
        dtypes={"i": I64, "j": I64},
    ),
    "integers computed": lambda: model(
        [node("Add", "i i", "j"), node("Cast", "j", "y", to=1)], {"i": (4,)}, dtypes={"i": I64}
    ),
    "float64": lambda: model(
        [node("MatMul", "x v", "m"), node("Relu", "m")],
        {"x": (3, 4)},
        constants={"v": w(4, 5).astype(F64)},
        dtypes={"x": F64, "y": F64},
    ),
    "float16": lambda: model(
        [node("MatMul", "x v", "m"), node("Relu", "m")],
        {"x": (3, 4)},
        constants={"v": w(4, 5).astype(F16)},
        dtypes={"x": F16, "y": F16},
    ),
    "bool output": lambda: model(
        [node("Greater", "x k")], {"x": (3, 4)}, constants={"k": np.float32(0.1)}, dtypes={"y": np.bool_}
    ),
    "dense of one": lambda: model(
        [node("Gemm", "x v b")], {"x": (1, 1)}, constants={"v": weights(1, 1), "b": np.ones(1, np.float32)}
    ),
    "matmul of three axes": lambda: model(
        [node("MatMul", "x v", "m"), node("Add", "m b")],
        {"x": (2, 3, 5)},
        constants={"v": w(5, 7), "b": weights(7)},
    ),
    "matmul of two tensors": lambda: model([node("MatMul", "x z")], {"x": (2, 3, 5), "z": (2, 5, 4)}),
    "layer normalization": lambda: model(
        [node("MatMul", "x v", "m"), node("LayerNormalization", "m g b", "n"), node("MatMul", "n u")],
        {"x": (2, 6)},
        constants={"v": w(6, 8), "g": weights(8), "b": weights(8, seed=1), "u": w(8, 3)},
    ),
    "squeeze and excite": lambda: around(
        [
            node("GlobalAveragePool", "c", "g"),
            conv("h", "g", "u"),
            node("Relu", "h", "r"),
            conv("k", "r", "v"),
            node("HardSigmoid", "k", "l"),
            node("Mul", "c l", "d"),
        ],
        {"u": w(3, 8, 1, 1), "v": w(8, 3, 1, 1)},
    ),
}
