"""The composites of layers that take means: average pooling, mean, bilinear resize, softmax."""

from __future__ import annotations

import numpy as np
from tvm import relax

from qcompile import ops
from qcompile.passes.base import constant, shape_of
from qcompile.passes.composite import Composite
from qcompile.passes.composite_weighted import image_padding, image_pair
from qcompile.passes.fold_layer import Folded, Layer
from qcompile.reference.arithmetic import pool_multipliers
from qcompile.reference.elementwise import SOFTMAX_MAX_ELEMENTS, exponentials


def avg_pool(layer: Layer) -> Folded | str:
    attrs = layer.chain.call.attrs
    if not str(attrs.layout).startswith("NC"):
        return f"layout {attrs.layout}"
    window = image_pair(attrs.pool_size, 1)
    spec = ops.AvgPool2d(
        window,
        image_pair(attrs.strides, 1),
        image_padding(attrs.padding),
        image_pair(attrs.dilation, 1),
        bool(attrs.ceil_mode),
        bool(attrs.count_include_pad),
        layer.x,
        layer.epilogue,
    )
    args = [layer.inputs[0].expr]
    if layer.x is not None:
        args.append(constant(pool_multipliers(layer.x, window[0] * window[1], layer.out)))
    return _of_one_tensor(layer, spec, args)


def mean(layer: Layer) -> Folded | str:
    attrs = layer.chain.call.attrs
    rank = len(shape_of(layer.inputs[0].expr))
    axes = range(rank) if attrs.axis is None else sorted(int(axis) % rank for axis in attrs.axis)
    spec = ops.Mean(tuple(axes), bool(attrs.keepdims), layer.x, layer.epilogue)
    count = int(np.prod([shape_of(layer.inputs[0].expr)[axis] for axis in axes]))
    if layer.x is not None and count * 255 >= 2**31:
        return f"a sum of {count} codes may exceed int32"
    return _of_one_tensor(layer, spec, [layer.inputs[0].expr])


def softmax(layer: Layer) -> Folded | str:
    shape = shape_of(layer.chain.out)
    axis = int(layer.chain.call.attrs.axis) % len(shape)
    if layer.x is None:
        return "a float32 softmax has no composite"
    if shape[axis] > SOFTMAX_MAX_ELEMENTS:
        return f"{shape[axis]} elements; at most {SOFTMAX_MAX_ELEMENTS} fit its int32 sum"
    table = constant(exponentials(layer.x), "int32")
    return _of_one_tensor(layer, ops.Softmax(axis, layer.x, layer.epilogue), [layer.inputs[0].expr, table])


def resize(layer: Layer) -> Folded | str:
    """Bilinear resize as two taps an axis, with weights of 11 fraction bits."""
    if layer.x is None:
        return "a float32 resize has no composite"
    call = layer.chain.call
    reason = resize_refusal(call)
    if reason:
        return reason
    coordinates = str(call.attrs.coordinate_transformation_mode)
    sizes, results = shape_of(call.args[0])[2:], shape_of(call)[2:]
    tables = [table for n, out in zip(sizes, results, strict=True) for table in taps(n, out, coordinates)]
    args = [layer.inputs[0].expr, *(constant(table, "int32") for table in tables)]
    return _of_one_tensor(layer, ops.ResizeLinear(layer.x, layer.epilogue), args)


def resize_refusal(call: relax.Call) -> str | None:
    """Why a linear resize has no integer form, None if it has."""
    if str(call.attrs.layout) != "NCHW":
        return f"layout {call.attrs.layout}"
    if str(call.attrs.coordinate_transformation_mode) not in COORDINATES:
        return f"coordinates {call.attrs.coordinate_transformation_mode}"
    return None


COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")


def taps(size: int, out: int, coordinates: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each of ``out`` results, the two elements of ``size`` that it lies between, and their weights: int32 (out, 2).

    Weights have 11 fraction bits and sum to 2048. Beyond the edges both elements are the edge's.
    """
    x = np.arange(out, dtype=np.float64)
    if coordinates == "asymmetric":
        position = x * size / out
    elif coordinates == "align_corners":
        position = x * (size - 1) / max(out - 1, 1)
    elif coordinates == "pytorch_half_pixel" and out == 1:
        position = x
    else:
        position = (x + 0.5) * size / out - 0.5
    low = np.floor(position)
    fraction = np.rint((position - low) * 2048).astype(np.int32)
    index = np.clip(np.stack([low, low + 1], axis=1), 0, size - 1).astype(np.int32)
    return index, np.stack([2048 - fraction, fraction], axis=1)


def _of_one_tensor(layer: Layer, spec: ops.Spec, args: list[relax.Expr]) -> Folded:
    """The anchor's operator on its one tensor, with the epilogue."""
    if layer.residual is not None:
        args = [*args, layer.residual.expr]
    composite = Composite(args)
    call = layer.chain.call
    x = composite.real(0, layer.x)
    v = composite.emit(relax.Call(call.op, [x, *call.args[1:]], call.attrs))
    return Folded(spec, composite, composite.finish(v, layer.epilogue))
