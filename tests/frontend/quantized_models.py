"""A small network quantized by ONNX Runtime, and the imported plan applied to the imported float graph."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization
from tvm import relax

from qcompile.graph import MainBuilder, read, substitute
from qcompile.model import Model
from qcompile.plan import TensorPlan
from tests.frontend.onnx_models import model, node, weights


def network() -> onnx.ModelProto:
    """Every operator that ONNX Runtime quantizes, in one CNN: (N, 3, 8, 8) -> (N, 6)."""
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2 b2", "c2", pads=[1, 1, 1, 1], group=8),
        node("Sigmoid", "c2", "s2"),
        node("Add", "c2 s2", "a"),
        node("Clip", "a lo hi", "a6"),
        node("MaxPool", "a6", "mp", kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", "a6", "ap", kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", "mp ap", "cc", axis=1),
        node("LeakyRelu", "cc", "lr", alpha=0.1),
        node("GlobalAveragePool", "lr", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w3 b3", "ge", transB=1),
        node("MatMul", "ge w4", "mm"),
        node("Add", "mm b4", "mb"),
        node("Mul", "mb mb", "mu"),
        node("Softmax", "mu"),
    ]
    shapes = {
        "w1": (8, 3, 3, 3),
        "b1": (8,),
        "w2": (8, 1, 3, 3),
        "b2": (8,),
        "w3": (10, 16),
        "b3": (10,),
        "w4": (10, 6),
    }
    constants = {name: 0.3 * weights(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    constants |= {"b4": 0.3 * weights(6, seed=9), "lo": np.float32(0), "hi": np.float32(6)}
    return model(nodes, {"x": ("N", 3, 8, 8)}, constants=constants, opset=13)


class Reader(quantization.CalibrationDataReader):
    def __init__(self, samples: Iterable[dict[str, np.ndarray]]) -> None:
        self.samples = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.samples, None)


def quantize(
    folder: Path,
    kind: str,
    per_channel: bool,
    dtype: str,
    source: Path | None = None,
    samples: Iterable[dict[str, np.ndarray]] = (),
) -> str:
    """Path of a model, by default of the network, quantized by ONNX Runtime.

    kind: "QDQ", "QOperator" or "dynamic". dtype: of activations, for "dynamic" of weights.
    """
    logging.disable(logging.WARNING)
    if source is None:
        source, samples = folder / "float.onnx", [{"x": weights(1, 3, 8, 8, seed=i)} for i in range(4)]
        onnx.save(network(), source)
    target = str(folder / f"{kind}.onnx")
    types = quantization.QuantType
    if kind == "dynamic":
        quantization.quantize_dynamic(source, target, per_channel=per_channel, weight_type=types[dtype])
    else:
        quantization.quantize_static(
            source,
            target,
            Reader(samples),
            quant_format=quantization.QuantFormat[kind],
            per_channel=per_channel,
            activation_type=types[dtype],
            weight_type=types.QInt8,
        )
    return target


def simulated(imported: Model) -> Model:
    """The float model with a quantize and a dequantize behind every activation of its imported plan."""
    old, plan = read(imported.module), imported.imported_plan.tensors
    builder = MainBuilder(old.params)
    values: dict[relax.Var, relax.Expr] = {}

    def through_codes(var: relax.Var) -> relax.Expr:
        entry: TensorPlan | None = plan.get(var.name)
        if entry is None:
            return var
        a = entry.affine
        pair = relax.const(a.scale, "float32"), relax.const(a.zero_point, a.dtype)
        codes = builder.emit(relax.op.quantize(var, *pair, axis=0, out_dtype=a.dtype), f"{var.name}~codes")
        return builder.emit(relax.op.dequantize(codes, *pair, axis=0, out_dtype="float32"), f"{var.name}~real")

    for param in old.params:
        values[param] = through_codes(param)
    for var, value in old.bindings:
        values[var] = through_codes(builder.emit(substitute(value, values), var.name))
    module = builder.module([values[o] for o in old.outputs])
    return Model(module, imported.inputs, imported.outputs, imported.layers)
